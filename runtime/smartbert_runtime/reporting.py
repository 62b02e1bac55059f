"""What a long operation reports while it runs: steps, each of which replaces the one before, and notes, which stay."""

from __future__ import annotations


class Reporter:
    """Reports nothing. A program that wants to follow overrides one method or both; commands print to stderr."""

    def step(self, text: str) -> None:
        """A step has begun: "quantizing layer_03 to int8"."""

    def note(self, text: str) -> None:
        """Something a person should know afterwards, too: "exit_02 stays fp32: ..."."""


SILENT = Reporter()
