"""Who is measured: the package's variants, its weights as one plain graph, optimum."""
