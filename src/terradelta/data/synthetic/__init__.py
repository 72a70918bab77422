"""Drawn scenes with known truth: two dates of a place, land cover and change."""

from terradelta.data.synthetic.files import synth, write_folders, write_geotiff_pair
from terradelta.data.synthetic.scene import ScenePair, draw_pair

__all__ = ["ScenePair", "draw_pair", "synth", "write_folders", "write_geotiff_pair"]
