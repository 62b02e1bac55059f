"""What a model is cut into: each part's name, inputs, outputs and module."""
