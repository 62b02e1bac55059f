"""Reading texts from txt, csv, tsv and jsonl files, from standard input and from pipes."""
