"""What short training runs of the tests have in common."""

from terradelta.training.config import TrainConfig

SMALL = TrainConfig(
    encoder="resnet18_slim", batch_size=4, learning_rate=1e-3, head_rate_factor=2, seed=5
)
