"""Run SmartBERT packages over onnxruntime: `SmartBert.load("out/").classify(["..."])`. Needs no torch."""

import typing

import smartbert_runtime.telemetry  # noqa: F401 - first: it must precede the import of onnxruntime
from smartbert_runtime.classifier import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import (
    BenchError,
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
from smartbert_runtime.prediction import Prediction
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.sessions.threads import share_thread_pool
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.trace import Trace

__all__ = [
    "BenchError",
    "Columns",
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
    "Reporter",
    "SmartBert",
    "SmartBertError",
    "Trace",
    "TrainingError",
    "__version__",
    "share_thread_pool",
]

if typing.TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, which would accept any name

    def __getattr__(name: str) -> str:
        if name == "__version__":
            # Imported at first use: importlib.metadata is slow to import.
            from importlib.metadata import version

            return version("smartbert")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
