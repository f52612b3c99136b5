"""Evaluate a model on a split, and compute its metrics."""
