"""The runtime around the compiled core: coordinator, Ps, attached processes, and what Python programs use."""
