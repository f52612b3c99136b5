"""Result types in, pictures, tables and JSON lines out. Never needs torch."""
