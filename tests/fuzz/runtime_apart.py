"""A small runtime in a process of its own, of which whoever has started it is no part, until stdin ends."""

from __future__ import annotations

import sys

import gomp

if __name__ == "__main__":
    with gomp.Runtime(procs=1, max_heap="64MiB", name=sys.argv[1]):
        print("here", flush=True)
        sys.stdin.read()
