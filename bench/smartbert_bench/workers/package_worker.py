"""`python -m smartbert_bench.workers.package_worker`: one variant of a package, asked as anyone asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import tokenizers

from smartbert_bench.workers.serve import serve
from smartbert_runtime.classifier import SmartBert
from smartbert_runtime.package.decode import decode
from smartbert_runtime.sessions.threads import share_thread_pool

# The two ways to ask: with the preset's thresholds, or with every layer run and the last head asked.
POLICY, ALL_LAYERS = "policy", "all layers"


@dataclass(frozen=True, kw_only=True)
class PackageSpec:
    """Which variant of which folder, on what."""

    folder: str
    layout: str
    precision: str
    preset: str
    providers: tuple[str, ...]
    threads: int


class PackageRunner:
    """`SmartBert` behind the face that all contenders have."""

    def __init__(self, spec: PackageSpec, *, preload: bool) -> None:
        share_thread_pool(spec.threads)  # the process is all its own
        self._model = SmartBert.load(
            spec.folder,
            layout=spec.layout,
            precision=spec.precision,
            providers=spec.providers,
            threads=spec.threads,
            preload=preload,
        )
        policy = self._model.policy(spec.preset)
        self._policies = {POLICY: policy, ALL_LAYERS: policy.at_full_depth()}

    @property
    def versions(self) -> Mapping[str, str]:
        """The runtime's own dependencies."""
        return {
            "onnxruntime": onnxruntime.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
        }

    def answer(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, way: str, batch_size: int
    ) -> tuple[list[str], list[int] | None]:
        """Labels and layers run."""
        predictions = self._model.classify(texts, text_pairs=pairs, policy=self._policies[way], batch_size=batch_size)
        return [answer.label for answer in predictions], [len(answer.layers_run) for answer in predictions]


def open_package_runner(spec: Mapping[str, object], preload: bool) -> PackageRunner:
    """The package, opened."""
    return PackageRunner(decode(PackageSpec, spec, where="spec"), preload=preload)


if __name__ == "__main__":
    serve(open_package_runner)
