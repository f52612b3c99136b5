"""Files that others derived from EMOTIC and CAER-S -> person records; one module a format."""
