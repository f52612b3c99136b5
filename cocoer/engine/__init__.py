"""Loops, runs and the recogniser. Records go to a callable that is handed in."""
