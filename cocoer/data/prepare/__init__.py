"""From datasets as they are published to a verified person index."""
