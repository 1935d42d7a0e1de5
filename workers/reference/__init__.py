"""The reference programs: small, single-threaded, with numbers recorded from Go for each, by cycle and at the end.

Each ends with what proves that it did the same work as its twin in Go: a check and the last state of its random numbers, as a dict of
``check`` and ``final_rng``.
"""
