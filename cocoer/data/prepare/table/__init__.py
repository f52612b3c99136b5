"""Any other data set: annotation files in common formats -> rows -> a person index with its splits."""
