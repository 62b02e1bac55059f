"""The settings of one smartbert-bench run: the policy, the hardware, how often things are repeated."""

from __future__ import annotations

from dataclasses import dataclass

from smartbert_runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How much is measured, and on what.

    repeats: passes over the texts. batch_sizes: measured besides one text at a time. starts: fresh processes for each
    contender.
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
