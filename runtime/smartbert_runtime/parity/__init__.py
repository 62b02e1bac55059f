"""Parity with PyTorch: golden samples, comparisons, verification."""
