"""Where the ranges of int8 activations come from: a file of texts, else what training recorded in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smartbert.activations.ranges import ActivationRanges
from smartbert.activations.record import record_ranges
from smartbert_export.source_checkpoint import SourceCheckpoint
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer

ENOUGH_TEXTS, MOST_TEXTS = 256, 2048


def choose_ranges(
    source: SourceCheckpoint, file: Path | None, tokenizer: Tokenizer, policy: Policy, *, reporter: Reporter = SILENT
) -> ActivationRanges | None:
    """The ranges of the texts in `file`, else the checkpoint's; None where it has none, with a note.

    A note, too, where a checkpoint's lack the ranges of channels (as they were recorded formerly).
    Of a longer file, MOST_TEXTS texts are used, evenly spread.
    """
    if file is None:
        if source.ranges is None:
            reporter.note(
                "this checkpoint has no ranges of activations, so int8 computes a scale for each token, which is "
                "slower; --scales-file TEXTS records them"
            )
        elif not all(point.minima for point in source.ranges.points.values()):
            reporter.note(
                "this checkpoint has no ranges of its activations' channels, so int8 does not smooth them, which loses "
                "accuracy; --scales-file TEXTS records them"
            )
        return source.ranges
    examples = read_examples(file, Columns())
    if len(examples) < ENOUGH_TEXTS:
        reporter.note(f"only {len(examples)} texts to choose int8 scales from; give {ENOUGH_TEXTS} or more")
    tokens = tokenizer.encode(examples.texts, examples.pairs)
    if len(examples) > MOST_TEXTS:
        tokens = tokens.rows(np.linspace(0, len(examples) - 1, MOST_TEXTS).astype(int).tolist())
    done, texts_in_all = 0, len(tokens.truncated)

    def tick(texts: int) -> None:
        nonlocal done
        done += texts
        reporter.step(f"recording ranges of activations, text {done} of {texts_in_all}")

    return record_ranges(source.model, tokens, policy, tick=tick)
