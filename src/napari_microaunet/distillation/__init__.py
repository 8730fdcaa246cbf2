"""From a curated dataset to a student: so far, how good a model is."""
