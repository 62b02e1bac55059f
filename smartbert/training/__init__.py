"""How a model is trained: settings and control arms, the losses of both stages, and runs that survive being killed."""
