"""smartbert-bench: a package and its rivals measured in one run, each in its own process, taking turns.

Read run.py first (the order of a run), then contenders/ (what is compared) and workers/ (what runs in a process).
"""

import smartbert_runtime.telemetry  # noqa: F401 - must precede any import of onnxruntime, the rivals' too
