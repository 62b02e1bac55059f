"""Labeled texts for training: where they come from, and how they are split."""
