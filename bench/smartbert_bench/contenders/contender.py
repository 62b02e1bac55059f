"""A contender: its row's name, the process and the mode that it runs in, its size on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smartbert_bench.workers.process import WorkerSpec
from smartbert_runtime.errors import ConfigError

# Kinds: a variant of the package, its weights as one plain graph, a plain checkpoint through optimum.
PACKAGE, PLAIN, OPTIMUM = "package", "plain", "optimum"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the report. Two contenders may share a worker and differ in their mode.

    layers: how many each text runs where the worker does not report it.
    """

    name: str
    kind: str
    precision: str
    worker: WorkerSpec
    mode: str
    layers: int
    disk_bytes: int


def rival_providers(providers: Sequence[str]) -> tuple[str, ...]:
    """The package's providers for a model in one piece; ConfigError for a provider of one role only."""
    for name in providers:
        if "=" in name:
            raise ConfigError(
                f"--provider {name} is for one kind of part, and a rival has no parts",
                hint="name a provider for everything, or measure the package alone",
            )
    return tuple(providers)
