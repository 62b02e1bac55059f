"""Under which conditions it was measured: the texts, the settings, the machine, the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smartbert_runtime.errors import ConfigError
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.tokenizer import Tokenizer

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How much is measured, and on what.

    repeats: passes over the texts. batch_sizes: beside one by one. starts: fresh processes of each contender.
    """

    preset: str
    providers: tuple[str, ...]
    threads: int
    repeats: int = 3
    batch_sizes: tuple[int, ...] = (8, 32, 128)
    starts: int = 3

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"repeats must be 1 or more, not {self.repeats}", hint="change --repeats")
        if self.starts < 0:
            raise ConfigError(f"starts must be 0 or more, not {self.starts}", hint="change --starts")
        if self.threads < 1:
            raise ConfigError(f"threads must be 1 or more, not {self.threads}", hint="change --threads")
        if len(set(self.batch_sizes)) < len(self.batch_sizes) or min(self.batch_sizes, default=2) < 2:
            raise ConfigError(
                f"batch sizes must be 2 or more and differ, not {', '.join(map(str, self.batch_sizes))}",
                hint="change --batch-sizes; one text at a time is always measured",
            )


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """How long the texts are, in tokens of the package's tokenizer, cut at the model's limit."""

    mean: float
    p50: float
    p95: float
    max: int


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Beside the settings: the texts, and where it ran.

    load_average: over a minute, before the first process started and after the last had answered; None where the
    system has none.
    """

    source: str
    texts: int
    pairs: bool
    tokens: TokenCounts
    preset: str
    providers: tuple[str, ...]
    threads: int
    repeats: int
    batch_sizes: tuple[int, ...]
    starts: int
    cores: int
    machine: str
    processor: str
    load_average: tuple[float | None, float | None]
    versions: dict[str, str]


def conditions(
    settings: BenchSettings,
    examples: Examples,
    tokenizer: Tokenizer,
    *,
    load_average: tuple[float | None, float | None],
    versions: Mapping[str, str],
) -> Conditions:
    """All of it, of this machine as it is now."""
    lengths = tokenizer.encode(examples.texts, examples.pairs).attention_mask_bs.sum(axis=1)
    return Conditions(
        source=Path(examples.source).name,
        texts=len(examples),
        pairs=examples.pairs is not None,
        tokens=TokenCounts(
            mean=float(lengths.mean()),
            p50=float(np.percentile(lengths, 50)),
            p95=float(np.percentile(lengths, 95)),
            max=int(lengths.max()),
        ),
        preset=settings.preset,
        providers=settings.providers,
        threads=settings.threads,
        repeats=settings.repeats,
        batch_sizes=settings.batch_sizes,
        starts=settings.starts,
        cores=os.cpu_count() or 1,
        machine=platform.machine(),
        processor=_processor(),
        load_average=load_average,
        versions={"python": platform.python_version(), **versions},
    )


def load_average() -> float | None:
    """Over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    """Its name: as Linux tells it, else what Python knows."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
