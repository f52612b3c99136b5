"""The files that cocoer uses and does not make: what they are, how they are fetched, where they lie."""
