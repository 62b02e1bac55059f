"""SmartBERT: a BERT classifier that chooses its layers text by text, its training and its evaluation.

What the default trains is a jointly trained, self-distilled multi-exit encoder with gates. The exits save the
computation; on the tasks measured so far the gates add nothing to them (docs/training.md).

Hu, Zhu, Li, Tang: SmartBERT: A Promotion of Dynamic Early Exiting Mechanism for Accelerating BERT Inference,
IJCAI 2023, pp. 5067-5075, doi 10.24963/ijcai.2023/563, arXiv 2303.09266.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import smartbert_runtime.telemetry  # noqa: F401 - must precede any import of onnxruntime

if TYPE_CHECKING:
    from smartbert.configuration import SmartBertConfig
    from smartbert.modeling import SmartBertForSequenceClassification

__all__ = ["SmartBertConfig", "SmartBertForSequenceClassification"]


def __getattr__(name: str) -> object:
    # Loaded on first use: torch and transformers take seconds, and a base install does not have them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smartbert import configuration, modeling

    return getattr(configuration if name == "SmartBertConfig" else modeling, name)
