"""smartbert-bench's contender `plain`: a package's weights as one plain graph, in a file that its process reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smartbert_bench.conditions import BenchSettings
from smartbert_bench.contenders.contender import Contender, plain_contender
from smartbert_bench.contenders.full_depth_graph import monolith
from smartbert_runtime.package.manifest import SINGLE, Variant
from smartbert_runtime.package.open import Package


def plain_contenders(
    package: Package, variants: Sequence[Variant], settings: BenchSettings, folder: Path
) -> list[Contender]:
    """One for each precision among `variants`, its graph in `folder`.

    Raises ConfigError for a precision whose only layout is `single`: its parts are not apart.
    """
    contenders = []
    for precision in dict.fromkeys(variant.precision for variant in variants):
        graph = folder / f"plain.{precision}.onnx"
        graph.write_bytes(monolith(package, _parts(package, precision)).SerializeToString())
        contenders.append(plain_contender(package, precision, graph, settings))
    return contenders


def _parts(package: Package, precision: str) -> Variant:
    """The variant to take the weights from; `single` where there is no other, to be refused."""
    variants = [variant for variant in package.manifest.variants if variant.precision == precision]
    return next((variant for variant in variants if variant.layout != SINGLE), variants[0])
