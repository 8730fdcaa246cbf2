"""Random views of frames and their labels, for training."""
