"""SmartBERT: a BERT classifier that chooses its layers text by text, its training and its evaluation.

What the default trains is a jointly trained, self-distilled multi-exit encoder with gates. The exits save the
computation; on the tasks measured so far the gates add nothing to them (docs/training.md).

Hu, Zhu, Li, Tang: SmartBERT: A Promotion of Dynamic Early Exiting Mechanism for Accelerating BERT Inference,
IJCAI 2023, pp. 5067-5075, doi 10.24963/ijcai.2023/563, arXiv 2303.09266.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import smartbert_runtime.telemetry  # noqa: F401 - must precede any import of onnxruntime

if TYPE_CHECKING:
    from smartbert.configuration import SmartBertConfig
    from smartbert.data.sources import DataSource
    from smartbert.modeling import SmartBertForSequenceClassification
    from smartbert.training.settings import TrainingSettings
    from smartbert.training.train import train

__all__ = ["DataSource", "SmartBertConfig", "SmartBertForSequenceClassification", "TrainingSettings", "train"]
_HOMES = {
    "DataSource": "smartbert.data.sources",
    "SmartBertConfig": "smartbert.configuration",
    "SmartBertForSequenceClassification": "smartbert.modeling",
    "TrainingSettings": "smartbert.training.settings",
    "train": "smartbert.training.train",
}


def __getattr__(name: str) -> object:
    # Loaded on first use: torch and transformers take seconds, and a base install does not have them.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
