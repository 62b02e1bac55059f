"""The texts on which quantized parts are judged: a file's, the checkpoint's own, or texts made of the golden ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartbert.checkpoint_folder import CHECK_TEXTS_FILE
from smartbert.data.splits import number_labels
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, Tokens

# With 500 texts, one percent is five of them.
ENOUGH_TEXTS = 500


@dataclass(frozen=True, kw_only=True)
class CheckTexts:
    """Tokenized texts (r), and where all of them have one, their labels as class numbers."""

    tokens: Tokens
    label_ids_r: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.tokens.truncated)


def choose_check_texts(
    checkpoint: Path,
    file: Path | None,
    golden_texts: Sequence[str],
    golden_pairs: Sequence[str] | None,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    *,
    reporter: Reporter = SILENT,
) -> CheckTexts:
    """The texts of `file`; None: those that training kept in the checkpoint, else texts made of the golden ones.

    labels: the model's. A file with a column `label` must hold only these; InputError names the line of another.
    """
    kept = checkpoint / CHECK_TEXTS_FILE
    if file is not None or kept.is_file():
        texts = _read_texts(file or kept, labels, tokenizer)
        if len(texts) < ENOUGH_TEXTS:
            reporter.note(f"only {len(texts)} texts decide which parts are quantized; give {ENOUGH_TEXTS} or more")
        if texts.label_ids_r is None:
            reporter.note(
                f"{file or kept} has no labels: differences from fp32 are weighted by fp32's own probabilities"
            )
        return texts
    made, pairs = recombine(golden_texts, golden_pairs, ENOUGH_TEXTS)
    reporter.note(
        f"{len(made)} texts made of the {len(golden_texts)} golden ones decide which parts are quantized; "
        "--check-file gives real ones, labeled if possible"
    )
    return CheckTexts(tokens=tokenizer.encode(made, pairs))


def _read_texts(file: Path, labels: Sequence[str], tokenizer: Tokenizer) -> CheckTexts:
    examples = read_examples(file, Columns(), labels_if_any=True)
    label_ids_r = None
    if examples.labels is not None:
        label_ids_r = np.array(number_labels(examples, labels).label_ids, dtype=np.int64)
    return CheckTexts(tokens=tokenizer.encode(examples.texts, examples.pairs), label_ids_r=label_ids_r)


def recombine(texts: Sequence[str], pairs: Sequence[str] | None, count: int) -> tuple[list[str], list[str] | None]:
    """`texts` themselves, then new ones until there are `count` or no more can be made.

    A new text is the first half of one and the second half of another; of pairs, the second texts are exchanged.
    """
    made: dict[tuple[str, str], None] = {}
    for step in range(len(texts)):
        if len(made) >= count:
            break
        for row, text in enumerate(texts):
            other = (row + step) % len(texts)
            if pairs is not None:
                made[text, pairs[other]] = None
            elif step == 0:
                made[text, ""] = None
            else:
                words, ending = text.split(), texts[other].split()
                made[" ".join(words[: (len(words) + 1) // 2] + ending[(len(ending) + 1) // 2 :]), ""] = None
    firsts, seconds = [first for first, _ in made], [second for _, second in made]
    return firsts, None if pairs is None else seconds
