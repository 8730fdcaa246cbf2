"""Labels out to the formats of other tools, and in again: one module per format, one table."""
