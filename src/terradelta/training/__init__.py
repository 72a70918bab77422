"""Training: the recipe as a dataclass, one visible loop, and checkpoints that resume exactly."""
