"""Does a package answer as PyTorch did? Golden samples, comparisons, verification."""
