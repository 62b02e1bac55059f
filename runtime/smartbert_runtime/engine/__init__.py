"""How texts run: one text, a batch, or the single graph, through parts that are called by name."""
