"""Corrections of masks and outlines: pure functions on arrays."""
