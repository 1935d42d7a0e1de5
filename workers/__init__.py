"""Programs that run on the Ps: each module has a ``main`` whose keyword arguments are the program's parameters."""
