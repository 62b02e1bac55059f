"""Experiments with the product and their results; not installed, run from the repository's root."""

import smartbert_runtime.telemetry  # noqa: F401 - must precede any import of onnxruntime
