"""`python -m smartbert_bench.workers.graph_worker`: one plain ONNX graph, run as a user would run it.

onnxruntime's default session options except for the number of threads, the package's tokenizer, an argmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray

from smartbert_bench.workers.serve import serve
from smartbert_runtime.package.decode import decode
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.fixed_shape import Feeds, run_fixed
from smartbert_runtime.tokenizer import Tokenizer, batches_by_length


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """The graph's file, and the package folder with its tokenizer and labels."""

    graph: str
    folder: str
    providers: tuple[str, ...]
    threads: int


class GraphRunner:
    """One session over (input_ids, attention_mask, token_type_ids) -> logits (b,c)."""

    def __init__(self, spec: GraphSpec) -> None:
        package = open_package(spec.folder)
        self._manifest = package.manifest
        self._tokenizer = Tokenizer.from_package(package)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = spec.threads
        self._session = onnxruntime.InferenceSession(spec.graph, options, providers=list(spec.providers))

    @property
    def versions(self) -> Mapping[str, str]:
        """The runtime's own dependencies."""
        return {
            "onnxruntime": onnxruntime.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        }

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, mode: str, batch_size: int
    ) -> tuple[list[str], list[int] | None]:
        """Labels; the graph has one mode, full depth."""
        labels = [""] * len(texts)
        tokenized = self._tokenizer.tokenize(texts, pairs)
        for rows in batches_by_length([len(text.ids_s) for text in tokenized], batch_size):
            tokens = self._tokenizer.pad([tokenized[row] for row in rows])
            for row, best in zip(rows, self._logits(tokens.feeds()).argmax(axis=1), strict=True):
                labels[row] = self._manifest.labels[best]
        return labels, None

    def _logits(self, feeds: Feeds) -> NDArray[np.float32]:
        shape = self._manifest.model.fixed_shape
        if shape is None:
            return self._run(feeds)[0]
        return run_fixed(self._run, feeds, inputs=self._manifest.input, outputs=self._manifest.output, shape=shape)[0]

    def _run(self, feeds: Feeds) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = self._session.run(None, feeds)
        return outputs


def load_graph_runner(spec: Mapping[str, object], preload: bool) -> GraphRunner:
    """The graph, loaded; it is always loaded whole."""
    return GraphRunner(decode(GraphSpec, spec, where="spec"))


if __name__ == "__main__":
    serve(load_graph_runner)
