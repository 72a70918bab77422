"""Publishable area estimates: a sample of a map, its labels, and the accuracies they give."""
