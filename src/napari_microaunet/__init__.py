"""Label colonoscopy polyps in napari with a tiny network, correct the masks, export them."""
