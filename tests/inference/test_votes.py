import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from terradelta.data.augment import VIEW_SETS, undo_view
from terradelta.errors import ArgumentError
from terradelta.inference.votes import Vote, average, decide
from terradelta.models.change_network import ChangeOutput
from terradelta.models.decision import DecisionRule, join_rules

SIZE = (24, 40)


def draw_votes(views, shapes):
    """Random scores of each view at a resolution of their own; `shapes` are of the plain view."""
    generator = torch.Generator().manual_seed(0)
    votes = []
    for view in VIEW_SETS[views]:
        turned = [shape[::-1] if view.quarter_turns % 2 else shape for shape in shapes]
        before, after = (3 * torch.randn((2, 4, *turned[0]), generator=generator) for _ in range(2))
        change = torch.randn((2, *turned[1]), generator=generator)
        votes.append(Vote(view, ChangeOutput(before, after, change)))
    return votes


def enlarge(scores, view, size):
    """Every pixel of a view's scores, turned back: what `decide` must not need."""
    turned = size[::-1] if view.quarter_turns % 2 else size
    whole = F.interpolate(scores, size=turned, mode="bilinear", align_corners=False)
    return undo_view(whole, view)


def find_by_change(change, before, after, same_class):
    """Return the most probable classes and the probability of the whole."""
    ids = [part.index(max(part)) + 1 for part in (before, after)]
    if ids[0] == ids[1] and not same_class:
        ids = [0, 0]
    return ids, change * max(before) * max(after)


def find_by_transition(change, before, after, same_class):
    """Return the most probable transition, by trying all of them."""
    return max(
        (change * p * q, [i, j])
        for i, p in enumerate(before, start=1)
        for j, q in enumerate(after, start=1)
        if same_class or i != j
    )[::-1]


@pytest.mark.parametrize("views", ["none", "seed6", "d4"])
@pytest.mark.parametrize("shapes", [((3, 5), (3, 5)), ((3, 5), (12, 20)), (SIZE, SIZE)])
@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("decided_by", ["change", "transition"])
def test_decisions_follow_a_loop_over_enlarged_probabilities(views, shapes, same_class, decided_by):
    votes = draw_votes(views, shapes)
    change = torch.stack(
        [enlarge(vote.scores[2][:, None], vote.view, SIZE).sigmoid()[:, 0] for vote in votes]
    ).mean(0)
    before, after = (
        torch.stack(
            [enlarge(vote.scores[date], vote.view, SIZE).softmax(1) for vote in votes]
        ).mean(0)
        for date in (0, 1)
    )
    likely = change * before.amax(1) * after.amax(1)
    threshold = float((change if decided_by == "change" else likely).median())
    answers = decide(votes, SIZE, DecisionRule(threshold, decided_by, same_class))
    assert len(answers) == 2
    for b, row, column in np.ndindex(2, *SIZE):
        p = float(change[b, row, column])
        pair = before[b, :, row, column].tolist(), after[b, :, row, column].tolist()
        is_near = abs(p - threshold) < 1e-5
        if p >= threshold:
            find = find_by_change if decided_by == "change" else find_by_transition
            ids, sure = find(p, *pair, same_class)
            is_near |= decided_by == "transition" and abs(sure - threshold) < 1e-5
            if ids == [0, 0] or (decided_by == "transition" and sure < threshold):
                agreement = sum(x * y for x, y in zip(*pair, strict=True))
                p, ids = p * (1 if same_class else 1 - agreement), [0, 0]
                sure = 1 - p
        else:
            ids, sure = [0, 0], 1 - p
        if is_near:
            continue
        maps = answers[b]
        assert [maps.before_HW[row, column], maps.after_HW[row, column]] == ids
        assert maps.confidence_HW[row, column] == pytest.approx(100 * sure, abs=0.51)
        assert maps.unchanged_HW[row, column] == pytest.approx(100 * (1 - p), abs=0.51)
    changed = [(answer.before_HW > 0).mean() for answer in answers]
    assert all(0.02 < share < 0.98 for share in changed)


def test_probabilities_are_those_of_enlarged_scores():
    votes = draw_votes("flips", ((3, 5), (6, 10)))
    answer = average(votes, SIZE)
    for date in (0, 1):
        parts = [enlarge(vote.scores[date], vote.view, SIZE).softmax(1) for vote in votes]
        assert torch.allclose(answer[date], torch.stack(parts).mean(0), atol=1e-6)
    parts = [enlarge(vote.scores[2][:, None], vote.view, SIZE).sigmoid()[:, 0] for vote in votes]
    assert torch.allclose(answer.change_BHW, torch.stack(parts).mean(0), atol=1e-6)


def test_a_map_without_change_and_a_map_of_nothing_else():
    for logit, share in ((-9.0, 0), (9.0, 1)):
        scores = ChangeOutput(
            torch.zeros(1, 4, 3, 5), torch.zeros(1, 4, 3, 5), torch.full((1, 3, 5), logit)
        )
        (maps,) = decide([Vote(VIEW_SETS["none"][0], scores)], SIZE, DecisionRule(0.5))
        assert (maps.before_HW > 0).mean() == share
        assert (maps.unchanged_HW == 100 * (1 - share)).all()


def test_a_probability_that_is_just_the_threshold_counts_as_changed():
    """The card says "or more"; a sigmoid of 0 is one half without rounding."""
    change = torch.tensor([[[0.0, -1e-3], [1e-3, 0.0]]])
    scores = ChangeOutput(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), change)
    (maps,) = decide([Vote(VIEW_SETS["none"][0], scores)], (2, 2), DecisionRule(0.5))
    assert (maps.before_HW > 0).tolist() == [[True, False], [True, True]]
    assert (maps.after_HW > 0).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("decided_by", ["change", "transition"])
def test_swapping_the_dates_swaps_the_answer_even_where_both_dates_look_alike(decided_by):
    random = torch.Generator().manual_seed(0)
    before = torch.randn(1, 3, 8, 8, generator=random)
    after = torch.randn(1, 3, 8, 8, generator=random)
    after[..., :4] = before[..., :4]
    change = torch.full((1, 8, 8), 3.0)
    rule = DecisionRule(0.05, decided_by, same_class=False)
    view = VIEW_SETS["none"][0]
    (maps,) = decide([Vote(view, ChangeOutput(before, after, change))], (8, 8), rule)
    (swapped,) = decide([Vote(view, ChangeOutput(after, before, change))], (8, 8), rule)
    assert (maps.before_HW == swapped.after_HW).all()
    assert (maps.after_HW == swapped.before_HW).all()
    assert (maps.confidence_HW == swapped.confidence_HW).all()
    assert (maps.before_HW[:, :4] == 0).all()
    assert (maps.before_HW[:, 4:] > 0).any()


def test_a_lower_threshold_only_adds_changes():
    votes = draw_votes("flips", ((3, 5), (6, 10)))
    flagged = [
        np.stack([maps.before_HW > 0 for maps in decide(votes, SIZE, rule)])
        for rule in (DecisionRule(t, "transition", same_class=False) for t in (0.02, 0.08, 0.2))
    ]
    for lower, higher in itertools.pairwise(flagged):
        assert (lower | ~higher).all()
        assert lower.sum() > higher.sum()


def test_models_that_decide_alike_vote_by_the_mean_of_their_thresholds():
    rules = [DecisionRule(0.2, "transition", False), DecisionRule(0.4, "transition", True)]
    assert join_rules(rules) == DecisionRule(pytest.approx(0.3), "transition", True)
    with pytest.raises(ArgumentError, match="change and others by that of transition"):
        join_rules([*rules, DecisionRule(0.4)])
