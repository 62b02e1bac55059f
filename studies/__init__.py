"""The laboratory: experiments and their results. Not installed; run from the repository's root."""
