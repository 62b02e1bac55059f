"""What the bench tests share: the tiny package's contenders, four texts, and the quickest settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.package_variants import package_contenders
from smartbert_bench.settings import BenchSettings
from smartbert_runtime import SmartBert
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.text_files.examples import Examples

# Layers run under the package's policy: 3; 1, 2; all; 1, 2, 3.
TEXTS = (
    "Down, down, down.",
    "Oh dear! Oh dear! I shall be too late!",
    "Would the fall never come to an end?",
    "We are all mad here.",
)
QUICK = BenchSettings(
    preset="default", providers=("CPUExecutionProvider",), threads=1, repeats=2, batch_sizes=(2,), starts=1
)


def make_examples(labels: tuple[str, ...] | None, pairs: tuple[str, ...] | None = None) -> Examples:
    """TEXTS, labeled."""
    return Examples(texts=TEXTS, pairs=pairs, labels=labels, lines=(2, 3, 5, 6), source="data/dev.csv")


@pytest.fixture(scope="session")
def package(package_dir: Path) -> Package:
    """The tiny package, opened."""
    return open_package(package_dir)


@pytest.fixture(scope="session")
def answers(classifier: SmartBert) -> tuple[str, ...]:
    """Its labels for TEXTS."""
    return tuple(prediction.label for prediction in classifier.classify(TEXTS))


@pytest.fixture(scope="session")
def own(package: Package) -> list[Contender]:
    """The package under its policy, and at full depth."""
    return package_contenders(package, package.manifest.variants, QUICK)
