"""ONNX graphs: traced, simplified, put together into each layout."""
