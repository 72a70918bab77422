"""A trained FCN-ResNet-18 to compare labels on: those of an untrained network are random.

Trained once, in some minutes, on drawn scenes; kept, with its int8 graph, in benchmarks/work/.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from terradelta.data.synthetic import write_folders
from terradelta.inference.quantization import quantize
from terradelta.training.config import TrainConfig
from terradelta.training.loop import train

WORK = Path(__file__).parent / "work"
SEED = 11
PAIRS = 560
EPOCHS = 4


def train_fcn(work: Path) -> Path:
    """Return the model's folder, trained if necessary."""
    folder = work / "fcn_resnet18"
    if folder.exists():
        return folder
    print("training the network to compare labels on, some minutes", file=sys.stderr)
    write_folders(work / "drawn", PAIRS, SEED, overwrite=True)
    config = TrainConfig(
        data=str(work / "drawn"),
        model="fcn",
        encoder="resnet18",
        loss="ual-probability",
        class_weights=(2.0, 1.0, 1.0, 2.0, 2.0, 2.0),
        epochs=EPOCHS,
        batch_size=4,
        learning_rate=0.0004,
        brightness=0.1,
        contrast=0.1,
    )
    train(config, work / "run", overwrite=True)
    quantize(work / "run" / "best", work / "drawn")
    shutil.move(work / "run" / "best", folder)
    return folder
