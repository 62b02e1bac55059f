"""Prediction: what the model answers for one text, and how it got there."""

from __future__ import annotations

from dataclasses import dataclass

from smartbert_runtime.trace import Trace


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """The answer for one text, or for one pair of texts.

    score: the probability of `label`, the largest of `probabilities`.
    latency_ms: from the start of the text's batch to its own answer, with its share of the time spent tokenizing, and
    without that of loading the package's graphs.
    truncated: the text was longer than the model's input and was cut.
    """

    text: str
    text_pair: str | None
    label: str
    score: float
    probabilities: dict[str, float]
    trace: Trace
    latency_ms: float
    truncated: bool

    @property
    def exit_layer(self) -> int:
        """The layer whose head answered, from 1."""
        return self.trace.exit_layer

    @property
    def layers_run(self) -> tuple[int, ...]:
        """Layers that were computed for this text."""
        return self.trace.layers_run

    @property
    def layers_skipped(self) -> tuple[int, ...]:
        """Layers that a gate skipped; those after `exit_layer` were neither run nor skipped."""
        return self.trace.layers_skipped

    def __repr__(self) -> str:
        pair = "" if self.text_pair is None else f", text_pair={self.text_pair!r}"
        return (
            f"Prediction(label={self.label!r}, score={self.score:.4f}, exit_layer={self.exit_layer}, "
            f"latency_ms={self.latency_ms:.2f}, text={self.text!r}{pair})"
        )

    def to_dict(self) -> dict[str, object]:
        """All of it but the trace's arrays, in values that JSON knows; `smartbert-infer --format json` prints it."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {
            "text": self.text,
            **pair,
            "label": self.label,
            "score": self.score,
            "probabilities": self.probabilities,
            "exit_layer": self.exit_layer,
            "layers_run": list(self.layers_run),
            "layers_skipped": list(self.layers_skipped),
            "latency_ms": self.latency_ms,
        }
