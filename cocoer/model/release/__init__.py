"""What the published checkpoint needs."""
