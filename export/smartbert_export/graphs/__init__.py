"""ONNX graphs: traced, simplified, joined for each layout, and counted by operator coverage."""
