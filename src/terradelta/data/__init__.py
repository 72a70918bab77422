"""Image pairs for training and scoring: folder layouts, reading, augmentation, batches, scenes."""
