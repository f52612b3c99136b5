"""Images in, predictions out: the recogniser and what makes it fast."""
