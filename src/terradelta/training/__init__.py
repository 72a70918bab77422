"""Training: the recipe as a dataclass, one visible loop, and exact resuming from checkpoints."""
