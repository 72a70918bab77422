import pytest

from terradelta.errors import ArgumentError
from terradelta.training.config import TrainConfig


def test_yaml_round_trip(tmp_path):
    config = TrainConfig(data="x", loss="cosine", class_weights=(1.0, 2.0), crop_size_px=128)
    config.write_yaml(tmp_path / "config.yaml")
    assert TrainConfig.read_yaml(tmp_path / "config.yaml") == config


def test_the_defaults_are_the_reference_recipe():
    config = TrainConfig()
    assert (config.learning_rate, config.head_rate_factor, config.weight_decay) == (
        1.5e-4,
        10,
        1e-4,
    )
    assert (config.poly_power, config.epochs, config.batch_size) == (0.9, 30, 8)
    assert (config.consistency_weight, config.changed_pixel_weight) == (0.5, 2)
    assert (config.views, config.val_every) == ("seed6", 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "options that do not exist: epoch"),
        ("- 3", "holds list"),
        ("epochs: [", "cannot be read"),
        ("epochs: 0", "epochs is 0"),
        ("learning_rate: -1", "learning_rate is -1"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message):
        TrainConfig.read_yaml(path)
