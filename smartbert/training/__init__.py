"""How a model learns: the arms and their settings, the losses of both stages, the loop that survives being killed."""
