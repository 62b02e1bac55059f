"""The conditions of a run, reported with its figures: texts, settings, machine, load, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smartbert_bench.settings import BenchSettings
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.tokenizer import Tokenizer

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """How long the texts are, in tokens of the package's tokenizer, truncated to the model's limit."""

    mean: float
    p50: float
    p95: float
    max: int


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The settings, the texts, and the machine.

    load_average: over one minute, before the first process started and after the last one was done; None where the
    system does not report one.
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


def collect_conditions(
    settings: BenchSettings,
    examples: Examples,
    tokenizer: Tokenizer,
    *,
    load_average: tuple[float | None, float | None],
    versions: Mapping[str, str],
) -> Conditions:
    """The conditions of a run on this machine; versions: of the libraries that the contenders use."""
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
    """Over the last minute; None where the system does not report one."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    """The processor's name as Linux reports it, otherwise what Python knows."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
