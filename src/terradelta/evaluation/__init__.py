"""Scores of change maps: counts, the protocols that compute scores from them, and their errors."""
