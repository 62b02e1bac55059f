"""`python -m smartbert_bench.workers.optimum_worker`: a plain classifier through optimum-onnx.

What its users write: `ORTModelForSequenceClassification` and `AutoTokenizer` over one folder, numpy in and out, texts
of similar length in a batch, each batch padded to its longest text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from onnxruntime import SessionOptions
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

from smartbert_bench.workers.serve import serve
from smartbert_runtime.package.decode import decode
from smartbert_runtime.tokenizer import batches_by_length


@dataclass(frozen=True, kw_only=True)
class OptimumSpec:
    """A folder with a graph, its config and its tokenizer; texts are truncated to max_length tokens."""

    folder: str
    graph: str
    max_length: int
    providers: tuple[str, ...]
    threads: int


class OptimumRunner:
    """The exported model behind the interface of all contenders."""

    def __init__(self, spec: OptimumSpec) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = spec.threads
        self._model = ORTModelForSequenceClassification.from_pretrained(
            spec.folder, file_name=spec.graph, providers=list(spec.providers), session_options=options
        )
        self._tokenizer = AutoTokenizer.from_pretrained(spec.folder)
        self._labels: dict[int, str] = self._model.config.id2label
        self._max_length = spec.max_length

    @property
    def versions(self) -> Mapping[str, str]:
        """The libraries between a text and its label."""
        return {name: version(name) for name in ("optimum", "optimum-onnx", "transformers", "onnxruntime")}

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, mode: str, batch_size: int
    ) -> tuple[list[str], list[int] | None]:
        """Labels; the graph has one mode, full depth."""
        labels = [""] * len(texts)
        tokenized = self._tokenizer(
            list(texts), list(pairs) if pairs else None, truncation=True, max_length=self._max_length
        )
        for rows in batches_by_length([len(ids) for ids in tokenized["input_ids"]], batch_size):
            tokens = self._tokenizer.pad({name: [values[row] for row in rows] for name, values in tokenized.items()})
            feeds = {name: np.array(values) for name, values in tokens.items()}
            for row, best in zip(rows, self._model(**feeds).logits.argmax(axis=1).tolist(), strict=True):
                labels[row] = self._labels[best]
        return labels, None


def load_optimum_runner(spec: Mapping[str, object], preload: bool) -> OptimumRunner:
    """The graph, loaded; it is always loaded whole."""
    return OptimumRunner(decode(OptimumSpec, spec, where="spec"))


if __name__ == "__main__":
    serve(load_optimum_runner)
