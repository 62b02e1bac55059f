"""The package folder: its manifest and policy file, and the checks on opening it."""
