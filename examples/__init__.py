"""The demo and ways to embed a package; not installed, run from the repository's root."""
