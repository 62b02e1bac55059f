"""Labelled texts for training."""
