"""A trained model for tests: a U-Net, which pools, so what it answers depends on a window.

`recipes/drawn_scenes.py` makes it: seven minutes on drawn scenes, which it knows well, and nothing
real.
"""

from pathlib import Path

DRAWN_MODEL = Path(__file__).parent / "drawn"
