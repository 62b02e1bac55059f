"""Silences the messages and progress bars of transformers and datasets in our commands, which report on their own."""

from __future__ import annotations

import datasets
import transformers


def quiet_libraries() -> None:
    """For commands only: a program that embeds the package makes its own choice."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
