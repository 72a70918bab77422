"""Blocks answered by many machines: the worker, the scheduling of blocks, and Ray."""
