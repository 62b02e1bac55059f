"""Labeled texts for training."""
