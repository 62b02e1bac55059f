"""`python -m smartbert_bench.workers.package_worker`: one variant of a package, run as a user runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import tokenizers

from smartbert_bench.workers.protocol import FULL_DEPTH, POLICY
from smartbert_bench.workers.serve import serve
from smartbert_runtime.classifier import SmartBert
from smartbert_runtime.package.decode import decode
from smartbert_runtime.sessions.threads import share_thread_pool


@dataclass(frozen=True, kw_only=True)
class PackageSpec:
    """Which variant of which folder, and how it is run."""

    folder: str
    layout: str
    precision: str
    preset: str
    providers: tuple[str, ...]
    threads: int


class PackageRunner:
    """`SmartBert` behind the interface of all contenders."""

    def __init__(self, spec: PackageSpec, *, preload: bool) -> None:
        share_thread_pool(spec.threads)  # nothing else runs in this process
        self._model = SmartBert.load(
            spec.folder,
            layout=spec.layout,
            precision=spec.precision,
            providers=spec.providers,
            threads=spec.threads,
            preload=preload,
        )
        policy = self._model.policy(spec.preset)
        self._policies = {POLICY: policy, FULL_DEPTH: policy.at_full_depth()}

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
        """Labels and layers run."""
        predictions = self._model.classify(texts, text_pairs=pairs, policy=self._policies[mode], batch_size=batch_size)
        return [each.label for each in predictions], [len(each.layers_run) for each in predictions]


def load_package_runner(spec: Mapping[str, object], preload: bool) -> PackageRunner:
    """The package, loaded."""
    return PackageRunner(decode(PackageSpec, spec, where="spec"), preload=preload)


if __name__ == "__main__":
    serve(load_package_runner)
