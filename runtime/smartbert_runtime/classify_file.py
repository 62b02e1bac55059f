"""What smartbert-infer is asked: texts of the command line, of a file or of a pipe, answered window by window."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.classifier import WINDOW, Prediction, SmartBert, check_texts
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.formats import all_good, file_format
from smartbert_runtime.text_files.lines import Lines
from smartbert_runtime.text_files.stream import Record, accepted, read_records, windows

Answer = tuple[int, Prediction]  # with the text's index in the list or file
Asked = tuple[Iterator[Answer], int | None]  # the answers, and how many there will be, where that is known


@dataclass(frozen=True, kw_only=True)
class Ask:
    """How texts are to be answered: by which model, as `SmartBert.classify` takes it, and what becomes of bad lines."""

    model: SmartBert
    policy: Policy
    batch_size: int
    truncate: bool
    skip_bad_lines: bool

    def __post_init__(self) -> None:
        self._classify([])  # what the options themselves make wrong is told before anything is read

    @contextmanager
    def texts(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[Asked]:
        """The answers to these texts, which are all checked first."""
        check_texts(texts, pairs)
        records = [
            Record(index=index, line=index + 1, text=text, pair=pairs[index] if pairs else None)
            for index, text in enumerate(texts)
        ]
        if not self.truncate:
            for record in records:
                self._refuse_long(record)
        yield self._answers(windows(records, self._window)), len(records)

    @contextmanager
    def file(self, file: Path, columns: Columns) -> Iterator[Asked]:
        """The answers to the texts of a file, or of standard input for `-`; whoever asks lets go of it with `with`.

        A file is read twice, first to check it: all of it is answered or, with InputError, nothing. What can be read
        only once, a pipe, is answered as it arrives, up to the line with which something is wrong. To skip bad lines
        one reading is enough for both.
        """
        with Lines.open(file) as lines:
            format = file_format(file, lines)
            total = None
            if lines.rereadable and not self.skip_bad_lines:
                total = sum(1 for _ in self._read(lines, format, columns))
                lines.rewind()
            yield self._answers(windows(self._read(lines, format, columns), self._window, lines.ready)), total

    def _read(self, lines: Lines, format: str, columns: Columns) -> Iterator[Record | InputError]:
        records = read_records(lines, format, columns)
        if not self.truncate:
            records = accepted(records, self._refuse_long, lines.source)
        return records if self.skip_bad_lines else all_good(records)

    @property
    def _window(self) -> int:
        return WINDOW * self.batch_size

    def _answers(self, asked: Iterable[Sequence[Record | InputError]]) -> Iterator[Answer]:
        """Answers in order; an InputError among the records is told on stderr and skipped, unless all are that."""
        count = skipped = 0
        first: InputError | None = None
        for window in asked:
            records = [item for item in window if isinstance(item, Record)]
            yield from zip([record.index for record in records], self._classify(records), strict=True)
            for item in window:
                if isinstance(item, InputError):
                    first = first or item
                    _note(f"{item}: skipped")
            count += len(window)
            skipped += len(window) - len(records)
        if first and skipped == count:
            raise first
        if skipped:
            _note(f"{skipped} of {count} lines were skipped")

    def _classify(self, records: Sequence[Record]) -> list[Prediction]:
        return self.model.classify(
            [record.text for record in records],
            text_pairs=[record.pair for record in records if record.pair is not None] or None,
            policy=self.policy,
            batch_size=self.batch_size,
            truncate=self.truncate,
        )

    def _refuse_long(self, record: Record) -> None:
        self.model.tokenizer.encode([record.text], None if record.pair is None else [record.pair], truncate=False)


def _note(remark: str) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""  # of the progress bar, which draws itself anew
    print(f"{clear}note: {remark}", file=sys.stderr, flush=True)
