"""What napari shows: one dock, its sections, and the workbench that they share."""
