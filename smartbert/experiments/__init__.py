"""Rerun the comparison tables in results/: `python -m smartbert.experiments --help`."""
