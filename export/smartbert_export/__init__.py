"""Cut a SmartBERT checkpoint into ONNX parts and write the package folder that smartbert_runtime runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import smartbert_runtime.telemetry  # noqa: F401 - must precede any import of onnxruntime

if TYPE_CHECKING:
    from smartbert_export.package import export_package

__all__ = ["export_package"]


def __getattr__(name: str) -> object:
    # Loaded on first use: torch and onnx take seconds, and a base install does not have them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smartbert_export import package

    return getattr(package, name)
