"""PyTorch's answers: recorded as golden samples, and compared with the package's."""
