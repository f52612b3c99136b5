"""Files and detections in, typed batches out."""
