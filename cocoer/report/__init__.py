"""Result types in, images, tables and JSON lines out. Never needs torch."""
