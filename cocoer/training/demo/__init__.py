"""Training of what the demonstration starts from: CLIP, backbone and detectors of the demo world, on synthetic scenes alone."""
