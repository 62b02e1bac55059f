"""Training studies and their comparison tables in studies/results/: `python -m studies.training --help`."""
