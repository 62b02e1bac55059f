"""Reporters for tests: one that records, and one that acts when a step begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from smartbert_runtime.reporting import Reporter


class Recorder(Reporter):
    """Keeps every step and every note."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


class AtStep(Reporter):
    """Calls `action` when the step `text` begins, and counts how often."""

    def __init__(self, text: str, action: Callable[[], None]) -> None:
        self.times = 0
        self._text, self._action = text, action

    def step(self, text: str) -> None:
        if text.split(": ")[-1] == self._text:  # without the stage's number
            self.times += 1
            self._action()


class NoSteps(Reporter):
    """Fails the test when anything begins: bad input has to be refused before."""

    def step(self, text: str) -> NoReturn:
        raise AssertionError(f"not refused at the start: {text}")
