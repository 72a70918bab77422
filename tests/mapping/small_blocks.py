"""Maps of blocks of one tile, so that a small map has many."""

TILE_SIZE_PX = 320
MAPS = ("change.tif", "before_class.tif", "after_class.tif", "confidence.tif")
OUTPUTS = (*MAPS, "changes.gpkg", "transitions.csv", "summary.json")
"""What two runs of one job have in common, byte for byte."""
PROGRAM = f"""
import sys
from terradelta.inference import rasters
rasters.MAX_BLOCK_SIZE_PX = {TILE_SIZE_PX}
from terradelta.cli import main
main(sys.argv[1:])
"""
"""The command line, for `python -c`."""


def assert_same_bytes(folder, other, names=OUTPUTS):
    """Fail unless files of two predictions are the same byte for byte."""
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
