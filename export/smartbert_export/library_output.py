"""What libraries log and change about logging, kept away from the program that calls them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_logging() -> Iterator[None]:
    """What is imported inside leaves the program's logging alone: onnxruntime's tools turn on INFO for all of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class quiet_logger:
    """A library's remarks on its progress and on what is not installed, silenced but for errors."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        self._logger.setLevel(self._level)
