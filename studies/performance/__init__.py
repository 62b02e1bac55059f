"""Commands that measure what an export gives and takes; each is run by python -m."""
