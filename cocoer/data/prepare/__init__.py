"""Prepare a verified person index from published datasets."""
