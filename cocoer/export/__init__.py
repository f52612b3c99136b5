"""One file that holds the whole model, and running it."""
