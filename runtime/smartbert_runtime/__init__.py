"""Run SmartBERT packages over onnxruntime: `SmartBert.load("out/").classify(["..."])`. Needs no torch."""

from smartbert_runtime.classifier import Prediction, SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import (
    BenchError,
    CalibrationError,
    ConfigError,
    ExportError,
    InputError,
    IntegrityError,
    ManifestError,
    MissingExtraError,
    ParityError,
    ProviderError,
    SmartBertError,
    TrainingError,
)
from smartbert_runtime.sessions.threads import share_thread_pool
from smartbert_runtime.trace import Trace

__all__ = [
    "BenchError",
    "CalibrationError",
    "ConfigError",
    "ExportError",
    "InputError",
    "IntegrityError",
    "ManifestError",
    "MissingExtraError",
    "ParityError",
    "Policy",
    "Prediction",
    "ProviderError",
    "SmartBert",
    "SmartBertError",
    "Trace",
    "TrainingError",
    "share_thread_pool",
]
