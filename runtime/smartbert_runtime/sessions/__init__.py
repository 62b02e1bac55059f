"""onnxruntime: a session for each part, its execution providers, threads and memory."""
