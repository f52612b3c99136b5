"""The network, the competition and the coordination: tensors in, `ModelOutput` out."""
