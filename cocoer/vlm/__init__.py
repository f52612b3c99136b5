"""Questions to a vision-language model, helped by the exclusion of an inconsistent level (supplement, section 10)."""
