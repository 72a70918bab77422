"""Finds pictures that occur twice: in one split, or in training and in scoring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from terradelta.data.doctor.findings import DatasetFinding
from terradelta.data.doctor.measurement import PairRecord

NEAR_SIMILARITY = 0.96
"""Product of signatures; the same image with noise of 20 in 255 has 0.975."""
PLACE_SIMILARITY = 0.5
"""Images of different places had at most 0.27 (400 real ones, 60 drawn)."""
KEPT_FIRST = ("test", "val", "train")
"""If two splits share a picture, it is removed from the later one."""
_BLOCK = 2048


def find_leaks(
    records: Sequence[PairRecord], splits: Mapping[str, str]
) -> Iterator[DatasetFinding]:
    """Find pairs that occur twice, and pictures that two splits share.

    Args:
        records: Measurements of each pair.
        splits: Split of each pair as used by training, by reference.
    """
    usable = [record for record in records if record.is_usable]
    doubles = _find_doubles(usable)
    if doubles:
        yield DatasetFinding(
            "WARN",
            "duplicate-pair",
            f"{len(doubles)} of {len(records)} pairs hold the same pixels as another of their"
            " split",
            tuple(doubles),
            "terradelta doctor --fix writes a copy without them",
            "dropped",
            {"copies": doubles},
        )
    by_split: dict[str, list[PairRecord]] = defaultdict(list)
    for record in usable:
        if record.reference in splits and record.reference not in doubles:
            by_split[splits[record.reference]].append(record)
    exact = _find_shared(by_split)
    if exact:
        yield _tell(
            "leak-exact",
            exact,
            "hold an image that is also in another split",
            "terradelta doctor --fix writes a copy that keeps them only in test, or else in val",
        )
    near, place = _find_similar(by_split, exact)
    if near:
        fix = "remove them from the training split: a score on them is too high"
        yield _tell("leak-near", near, "hold almost the same image as another split", fix)
    if place:
        fix = "split by area, so that the scored ground was not trained on"
        yield _tell("leak-place", place, "show ground that is also in another split", fix)


def _tell(code: str, found: dict[str, str], what: str, fix: str) -> DatasetFinding:
    first, other = next(iter(found.items()))
    return DatasetFinding(
        "WARN" if code == "leak-place" else "FAIL",
        code,
        f"{len(found)} pair{'s' * (len(found) != 1)} {what}; the first: {first} and {other}",
        tuple(found),
        fix,
        "dropped" if code == "leak-exact" else "kept",
        {"like": found},
    )


def _find_doubles(records: Sequence[PairRecord]) -> dict[str, str]:
    """Return pairs whose two images occur in an earlier pair of the split, with that pair."""
    first: dict[tuple, str] = {}
    doubles = {}
    for record in records:
        assert record.images
        key = (record.split, *(image.digest for image in record.images))
        other = first.setdefault(key, record.reference)
        if other != record.reference:
            doubles[record.reference] = other
    return doubles


def _find_shared(by_split: Mapping[str, Sequence[PairRecord]]) -> dict[str, str]:
    """Return pairs with an image in an earlier split of KEPT_FIRST, with a pair there."""
    owners: dict[bytes, str] = {}
    shared = {}
    for split in KEPT_FIRST:
        own: dict[bytes, str] = {}
        for record in by_split.get(split, ()):
            assert record.images
            for image in record.images:
                if image.digest in owners:
                    shared.setdefault(record.reference, owners[image.digest])
                else:
                    own[image.digest] = record.reference
        owners |= own
    return shared


def _find_similar(
    by_split: Mapping[str, Sequence[PairRecord]], known: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return near copies and other pictures of the same ground, same as in `_find_shared`."""
    near: dict[str, str] = {}
    place: dict[str, str] = {}
    for kept, losing in combinations(KEPT_FIRST, 2):
        keepers = by_split.get(kept, ())
        losers = [r for r in by_split.get(losing, ()) if r.reference not in known]
        if not keepers or not losers:
            continue
        kept_SN, losing_SN = _stack(keepers), _stack(losers)
        for start in range(0, len(losing_SN), _BLOCK):
            similarity_SS = losing_SN[start : start + _BLOCK] @ kept_SN.T
            # Signatures come in twos, before and after of one pair.
            best_S, match_S = similarity_SS.max(axis=1), similarity_SS.argmax(axis=1)
            for row in np.flatnonzero(best_S >= PLACE_SIMILARITY):
                loser, keeper = losers[(start + row) // 2], keepers[match_S[row] // 2]
                group = near if best_S[row] >= NEAR_SIMILARITY else place
                group.setdefault(loser.reference, keeper.reference)
    return near, {reference: place[reference] for reference in place if reference not in near}


def _stack(records: Sequence[PairRecord]) -> np.ndarray:
    """Return (2 per pair, N) signatures."""
    return np.stack([i.signature_N for r in records for i in r.images or ()])
