"""Rows of a parquet file, read batch by batch with pyarrow, which the extra `parquet` installs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smartbert_runtime.errors import InputError, MissingExtraError
from smartbert_runtime.text_files.formats import Record
from smartbert_runtime.text_files.values import as_text

BATCH_ROWS = 1024


class ParquetRecords:
    """The rows of one file as records; their number, from 1, stands for the line.

    label_names: column -> names of its numbers, where the file declares them as Hugging Face's `datasets` does.
    """

    format, unit, rereadable = "parquet", "row", True

    def __init__(self, file: Path) -> None:
        self.source = str(file)
        self._file = file
        try:
            import pyarrow.parquet
        except ModuleNotFoundError as err:
            raise MissingExtraError(f"reading {file}", "parquet", "pyarrow") from err
        self._open: Any = pyarrow.parquet.ParquetFile
        with self._stream() as stream:
            self.label_names = _declared_names(self._parquet(stream).schema_arrow.metadata or {})

    def read(self) -> Iterator[Record | InputError]:
        """Every row; InputError for a file that is damaged."""
        number = 0
        with self._stream() as stream:
            try:
                for batch in self._parquet(stream).iter_batches(BATCH_ROWS):
                    for row in batch.to_pylist():
                        number += 1
                        yield Record(number, self._fields(row))
            except (OSError, ValueError) as err:  # pyarrow's errors are kinds of these
                raise self._unreadable(err) from err

    def ready(self) -> bool:
        """Whether the next row can be read without waiting: always."""
        return True

    def rewind(self) -> None:
        """Nothing: `read` begins anew."""

    def _fields(self, row: Mapping[str, object]) -> dict[str, str]:
        fields = {}
        for column, value in row.items():
            names = self.label_names.get(column)
            if names is not None and isinstance(value, int):
                if not 0 <= value < len(names):
                    raise InputError(
                        f"{self.source} holds unlabeled texts ({column} {value})", hint="give a file with labels"
                    )
                value = names[value]
            if (text := as_text(value)) is not None:
                fields[column] = text
        return fields

    def _stream(self) -> Any:
        try:
            return self._file.open("rb")
        except OSError as err:
            raise self._unreadable(err) from err

    def _parquet(self, stream: Any) -> Any:
        try:
            return self._open(stream)
        except (OSError, ValueError) as err:
            raise self._unreadable(err) from err

    def _unreadable(self, err: Exception) -> InputError:
        reason = getattr(err, "strerror", None) or str(err).splitlines()[0]
        return InputError(f"{self.source} cannot be read: {reason}", hint="check the file")


def _declared_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, kind["names"]))
            for column, kind in features.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and "names" in kind
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
