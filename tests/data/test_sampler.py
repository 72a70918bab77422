from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

from terradelta.data.sampler import PairBatchSampler
from terradelta.errors import ArgumentError


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_pair_once_no_lone_last_batch_and_the_right_length(shuffle):
    for num_pairs in range(1, 50):
        for batch_size in range(1, 10):
            sampler = PairBatchSampler(num_pairs, batch_size, shuffle, seed=3)
            batches = list(sampler)
            case = f"{num_pairs} pairs in batches of {batch_size}"
            assert sorted(i for batch in batches for i in batch) == list(range(num_pairs)), case
            assert len(sampler) == len(batches), case
            assert all(len(batch) == batch_size for batch in batches[:-1]), case
            if batch_size > 1 and num_pairs > 1:
                assert 2 <= len(batches[-1]) <= batch_size + 1, case
            else:
                assert len(batches[-1]) == 1, case


def test_order_is_a_function_of_seed_and_epoch():
    def draw(seed, epoch):
        sampler = PairBatchSampler(40, 8, seed=seed)
        sampler.epoch = epoch
        return list(sampler)

    assert draw(1, 2) == draw(1, 2)
    orders = {str(draw(seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25

    running = PairBatchSampler(40, 8, seed=1)
    list(running)
    running.epoch = 2
    assert list(running) == draw(1, 2)


def test_without_shuffling_the_order_is_the_listing():
    assert list(PairBatchSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3, 4]]


def test_all_positions_are_reached():
    first = set()
    for epoch in range(200):
        sampler = PairBatchSampler(10, 3, seed=0)
        sampler.epoch = epoch
        first.add(next(iter(sampler))[0])
    assert first == set(range(10))


def test_it_drives_a_data_loader():
    sampler = PairBatchSampler(9, 4, seed=0)
    loader = DataLoader(list(range(9)), batch_sampler=sampler)
    assert len(loader) == 2
    assert [batch.tolist() for batch in loader] == list(sampler)


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0), (4, 2, True, -1)])
def test_numbers_out_of_range(arguments):
    with pytest.raises(ArgumentError, match="must be"):
        PairBatchSampler(*arguments)
