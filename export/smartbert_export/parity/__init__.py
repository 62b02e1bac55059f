"""PyTorch's answers, recorded for comparison with the package's."""
