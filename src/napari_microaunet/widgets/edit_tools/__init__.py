"""The tools of the Edit section that need the mouse, layers or a thread."""
