"""``gomp top``: a running runtime in a terminal, read from its shared memory."""
