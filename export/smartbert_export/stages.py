"""The stages of an export, numbered in front of its progress: "3 of 8: tracing layer"."""

from __future__ import annotations

from smartbert_runtime.reporting import Reporter

# Reading, comparing, recording, cutting, quantizing, assembling, writing, verifying.
STAGES = 8


class Stages(Reporter):
    """Passes progress on with the stage's number; notes as they are."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._number = reporter, 0

    def begin(self) -> Reporter:
        """The next stage: the reporter for its steps."""
        self._number += 1
        return self

    def step(self, text: str) -> None:
        """Show what is being done now, and in which stage."""
        self._reporter.step(f"{self._number} of {STAGES}: {text}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._reporter.note(text)
