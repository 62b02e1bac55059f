"""onnxruntime: one session a part, on which providers, with how many threads."""
