"""Experiments with the product and their results; not installed, run from the repository's root."""
