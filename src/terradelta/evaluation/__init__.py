"""Scores of change maps: counts, the protocols that turn them into numbers, and their errors."""
