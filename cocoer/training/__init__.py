"""The two training stages, their states on disk, and starting many runs."""
