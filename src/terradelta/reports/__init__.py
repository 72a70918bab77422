"""Offline pages of predictions and training runs, and their pictures."""
