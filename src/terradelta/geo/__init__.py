"""Georeferenced rasters: reads a pair on one grid, computes ground areas, and writes maps and
polygons."""
