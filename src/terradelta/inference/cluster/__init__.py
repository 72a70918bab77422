"""Blocks answered by many machines: what a worker does, who is given what, and Ray in between."""
