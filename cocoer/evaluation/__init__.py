"""A model over a split, and the numbers that come of it."""
