"""The paper's tables, row by row."""
