"""What is compared: the package's variants, its weights as one plain graph, a plain checkpoint through optimum."""
