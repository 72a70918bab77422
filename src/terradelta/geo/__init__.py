"""Georeferenced rasters: pairs on one grid, ground areas, and files of maps and polygons."""
