"""Help of the options with which commands read files of texts."""

from __future__ import annotations

from smartbert_runtime.text_files.columns import KNOWN_COLUMNS

LABELED_FILE_HELP = "Labeled texts: tsv, csv, jsonl, json (one object a line) or parquet, .gz too; - reads jsonl."
_PAIRED = ", ".join(f"{first} with {second}" for first, second in KNOWN_COLUMNS if second)
_SINGLE = ", ".join(first for first, second in KNOWN_COLUMNS if not second)
TEXT_COLUMN_HELP = f"Column of the text; default: the first there is of {_PAIRED}; {_SINGLE}."
INPUT_FORMAT_HELP = "Format of the file; default: by its name's ending, standard input jsonl where it starts like it."
