"""Georeferenced rasters: a pair on one grid, ground areas, and the writers of maps and polygons."""
