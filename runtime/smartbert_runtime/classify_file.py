"""Classifying a file or a pipe: check it first, classify window by window, refuse or skip bad lines.

The public entry is `SmartBert.classify_file`, which passes itself in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.errors import InputError
from smartbert_runtime.prediction import Prediction
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.formats import raise_first_error
from smartbert_runtime.text_files.input_texts import InputText, check_each, read_texts, windows
from smartbert_runtime.text_files.records import open_records

Classify = Callable[[Sequence[str], Sequence[str] | None], list[Prediction]]


@dataclass(frozen=True, kw_only=True)
class FilePredictions:
    """Pairs of index and prediction, to iterate over once; `index` counts the file's records from 0, bad ones too.

    total: the number of predictions; None where it is not known in advance: for a pipe, and with `skip_bad_lines`.
    """

    indexed: Iterator[tuple[int, Prediction]]
    total: int | None

    def __iter__(self) -> Iterator[tuple[int, Prediction]]:
        return self.indexed


@contextmanager
def classify_file(
    file: Path | str,
    columns: Columns,
    classify: Classify,
    *,
    check: Callable[[InputText], object] | None,
    window: int,
    skip_bad_lines: bool,
    input_format: str | None,
    reporter: Reporter,
) -> Iterator[FilePredictions]:
    """See `SmartBert.classify_file`.

    classify: texts and their second texts (None: no pairs) to predictions, called with `window` texts at most.
    check: raises InputError for a text that `classify` would refuse; None where it refuses none.
    """
    with open_records(file, input_format) as records:

        def read() -> Iterator[InputText | InputError]:
            texts = read_texts(records, columns)
            return texts if check is None else check_each(texts, check, records)

        if skip_bad_lines:
            indexed = _classify_windows(windows(read(), window, records.ready), classify, reporter)
            yield FilePredictions(indexed=indexed, total=None)
            return
        total = None
        if records.rereadable:
            total = sum(1 for _ in raise_first_error(read()))
            records.rewind()
        indexed = _classify_windows(windows(raise_first_error(read()), window, records.ready), classify, reporter)
        yield FilePredictions(indexed=indexed, total=total)


def _classify_windows(
    items: Iterator[Sequence[InputText | InputError]], classify: Classify, reporter: Reporter
) -> Iterator[tuple[int, Prediction]]:
    """Predictions in order; an InputError among the texts is noted and skipped, or raised when nothing else came."""
    count = skipped = 0
    first_error: InputError | None = None
    for window in items:
        texts = [item for item in window if isinstance(item, InputText)]
        pairs = [text.pair for text in texts if text.pair is not None] or None
        predictions = classify([text.text for text in texts], pairs)
        yield from zip([text.index for text in texts], predictions, strict=True)
        for item in window:
            if isinstance(item, InputError):
                first_error = first_error or item
                reporter.note(f"{item}: skipped")
        count += len(window)
        skipped += len(window) - len(texts)
    if first_error and skipped == count:
        raise first_error
    if skipped:
        reporter.note(f"{skipped} of {count} lines were skipped")
