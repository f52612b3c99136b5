"""Convert files that others derived from EMOTIC and CAER-S to person records; one module per format."""
