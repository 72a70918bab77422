import json

import pytest

from terradelta.errors import ArgumentError, DataError
from terradelta.evaluation.seeds import compare_seeds
from terradelta.training.comparison import compare
from terradelta.training.config import TrainConfig

SCORES = {"none": [0.30, 0.34, 0.28], "ual": [0.33, 0.36, 0.32]}


@pytest.fixture
def runs(tmp_path):
    """Run folders as `train` leaves them, but for weights."""
    for loss, scores in SCORES.items():
        for seed, score in enumerate(scores):
            run = tmp_path / f"{loss}-{seed}"
            run.mkdir()
            TrainConfig(data="somewhere", loss=loss, seed=seed).write_yaml(run / "config.yaml")
            numbers = {"score": score, "fscd": None}
            (run / "test.json").write_text(
                json.dumps({"pairs": 4, "protocols": {"second": numbers}})
            )
    return {loss: [tmp_path / f"{loss}-{seed}" for seed in range(3)] for loss in SCORES}


def test_runs_are_paired_by_seed_whatever_their_order(runs):
    comparison = compare(runs["ual"], runs["none"][::-1])
    assert comparison.seeds == (0, 1, 2)
    assert comparison.differences["score"] == compare_seeds(SCORES["ual"], SCORES["none"])
    assert comparison.first["score"].mean == pytest.approx(0.3367, abs=1e-4)
    assert comparison.changed_options == {"loss": ("ual", "none")}
    fields = json.dumps(comparison.to_dict(), allow_nan=False)
    assert json.loads(fields)["differences"]["fscd"]["p_value"] is None


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    with pytest.raises(ArgumentError, match="the seeds are 0, 1, 2 and 0, 1"):
        compare(runs["ual"], runs["none"][:2])
    with pytest.raises(ArgumentError, match="two runs have the seed 0"):
        compare(runs["ual"][:1] * 2, runs["none"][:2])
    with pytest.raises(ArgumentError, match="different values of loss"):
        compare([runs["ual"][0], runs["none"][1]], runs["none"][:2])
    with pytest.raises(DataError, match="no numbers of the protocol 'ual'"):
        compare(runs["ual"], runs["none"], protocol="ual")
    (runs["ual"][2] / "test.json").unlink()
    with pytest.raises(DataError, match="no test split"):
        compare(runs["ual"], runs["none"])
    with pytest.raises(DataError, match="not a run"):
        compare([tmp_path], runs["none"])
