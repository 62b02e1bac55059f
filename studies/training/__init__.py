"""Rerun the comparison tables in results/: `python -m studies.training --help`."""
