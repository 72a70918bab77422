"""Areas one may publish: a sample of a map, labels for it, what they say of accuracy and area."""
