import numpy as np
import pytest
import torch
import torch.nn.functional as F

from terradelta.data.augment import VIEW_SETS, undo_view
from terradelta.inference.votes import Vote, average, decide
from terradelta.models.change_network import ChangeOutput

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


@pytest.mark.parametrize("views", ["none", "seed6", "d4"])
@pytest.mark.parametrize("shapes", [((3, 5), (3, 5)), ((3, 5), (12, 20)), (SIZE, SIZE)])
@pytest.mark.parametrize("same_class", [True, False])
def test_decisions_follow_a_loop_over_enlarged_probabilities(views, shapes, same_class):
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
    threshold = float(change.median())
    answers = decide(votes, SIZE, threshold, same_class=same_class)
    assert len(answers) == 2
    for b, row, column in np.ndindex(2, *SIZE):
        p = float(change[b, row, column])
        if abs(p - threshold) < 1e-5:
            continue
        if p >= threshold:
            pair = before[b, :, row, column], after[b, :, row, column]
            ids = [int(part.argmax()) + 1 for part in pair]
            sure = p * float(pair[0].max()) * float(pair[1].max())
            if ids[0] == ids[1] and not same_class:
                ids, p = [0, 0], p * (1 - float((pair[0] * pair[1]).sum()))
                sure = 1 - p
        else:
            ids, sure = [0, 0], 1 - p
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
        (maps,) = decide([Vote(VIEW_SETS["none"][0], scores)], SIZE, 0.5)
        assert (maps.before_HW > 0).mean() == share
        assert (maps.unchanged_HW == 100 * (1 - share)).all()


def test_a_probability_that_is_just_the_threshold_counts_as_changed():
    """The card says "or more"; a sigmoid of 0 is one half without rounding."""
    change = torch.tensor([[[0.0, -1e-3], [1e-3, 0.0]]])
    scores = ChangeOutput(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), change)
    (maps,) = decide([Vote(VIEW_SETS["none"][0], scores)], (2, 2), 0.5)
    assert (maps.before_HW > 0).tolist() == [[True, False], [True, True]]
    assert (maps.after_HW > 0).tolist() == [[True, False], [True, True]]
