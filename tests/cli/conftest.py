"""Fixtures of the command tests: call an entry point inside this process, with its own standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from tests.helpers import Run, run_main


class Call(Protocol):
    """How tests call a command."""

    def __call__(self, main: Callable[[], object], *arguments: str | Path, stdin: bytes = b"") -> Run:
        """Exit code, stdout and stderr of `main` with these arguments."""
        ...


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command as the console script would."""

    def run(main: Callable[[], object], *arguments: str | Path, stdin: bytes = b"") -> Run:
        # The thread pool that a command shares is the whole process's, and this one is pytest's.
        monkeypatch.setattr("smartbert_runtime.cli.infer.share_thread_pool", lambda threads: None)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        return run_main(main, *arguments, monkeypatch=monkeypatch, capsys=capsys)

    return run
