"""The demo, and ways to embed a package. Not installed; run from the repository's root."""
