"""Readings of Algorithm 1 where the supplement leaves a choice, measured against each other on the demo world."""
