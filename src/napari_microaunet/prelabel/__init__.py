"""A sequence of frames and a model to probability maps, masks and files."""
