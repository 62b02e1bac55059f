"""Where the ranges of int8 activations come from: a file of texts, else what training recorded in the checkpoint."""

from __future__ import annotations

from pathlib import Path

from smartbert.activations.ranges import ActivationRanges
from smartbert.activations.record import record_ranges
from smartbert_export.source_checkpoint import SourceCheckpoint
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer

ENOUGH_TEXTS = 256


def choose_ranges(
    source: SourceCheckpoint, file: Path | None, tokenizer: Tokenizer, policy: Policy, *, reporter: Reporter = SILENT
) -> ActivationRanges | None:
    """The ranges of the texts in `file`, else the checkpoint's; None where it has none, with a note."""
    if file is None:
        if source.ranges is None:
            reporter.note(
                "this checkpoint has no ranges of activations, so int8 computes a scale for each token, which is "
                "slower; --scales-file TEXTS records them"
            )
        return source.ranges
    examples = read_examples(file, Columns())
    if len(examples) < ENOUGH_TEXTS:
        reporter.note(f"only {len(examples)} texts to choose int8 scales from; give {ENOUGH_TEXTS} or more")
    done = 0

    def tick(texts: int) -> None:
        nonlocal done
        done += texts
        reporter.step(f"recording ranges of activations, text {done} of {len(examples)}")

    return record_ranges(source.model, tokenizer.encode(examples.texts, examples.pairs), policy, tick=tick)
