"""What the listeners of a process have together: one feed of readings, and the turns that are taken on whichever of them a request comes in."""

from __future__ import annotations

from gomp.service.live.feed import Feed
from gomp.service.pprof import Profiles
from gomp.service.turns import Turns


class Shared:
    """That of the process in which the segments of the runtime ``name`` are mapped."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.feed = Feed()
        self.profiles = Profiles(name)
        # Of all requests that read metrics, one at a time: a counter is not told to have been less than it was told before.
        self.scrapes = Turns("many scrapes wait already: make them rarer", at_once=1, most_waiting=64, patience_s=10.0)
