"""Running networks: tiles, test-time views, ensembles, and the outputs on disk."""
