"""The process that each contender runs in, and how it is talked to."""
