"""Texts from txt, csv, tsv and jsonl files and pipes."""
