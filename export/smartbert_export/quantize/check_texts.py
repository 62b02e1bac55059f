"""The texts on which quantized parts are compared with fp32: from a file, or made of the golden texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer, Tokens

# With 500 texts, one percent is five of them.
ENOUGH_TEXTS = 500


def choose_check_texts(
    file: Path | None,
    golden_texts: Sequence[str],
    golden_pairs: Sequence[str] | None,
    tokenizer: Tokenizer,
    *,
    reporter: Reporter = SILENT,
) -> Tokens:
    """The texts of `file`; None: texts made of the golden ones."""
    if file is not None:
        examples = read_examples(file, Columns())
        if len(examples) < ENOUGH_TEXTS:
            reporter.note(f"only {len(examples)} texts decide which parts are quantized; give {ENOUGH_TEXTS} or more")
        return tokenizer.encode(examples.texts, examples.pairs)
    texts, pairs = recombine(golden_texts, golden_pairs, ENOUGH_TEXTS)
    reporter.note(
        f"{len(texts)} texts made of the {len(golden_texts)} golden ones decide which parts are quantized; "
        "--check-file gives real ones"
    )
    return tokenizer.encode(texts, pairs)


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
