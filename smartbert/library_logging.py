"""Keeps transformers' own remarks and bars off the terminal of a command: ours say what matters."""

from __future__ import annotations

import datasets
import transformers


def quiet_libraries() -> None:
    """For commands only: a program that embeds the package decides this for itself."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
