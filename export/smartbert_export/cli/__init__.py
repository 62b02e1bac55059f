"""Commands that may need torch: they import it only when they are asked for it."""
