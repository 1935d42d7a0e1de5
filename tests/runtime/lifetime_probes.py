"""Each probe of Go's finalizers, cleanups and weak pointers: what it has observed, and what a test does to compare."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path

from kernel_heap import collect_now

import gomp
from gomp.core.shm import layout, records
from gomp.runtime import memstats

DATA = Path(__file__).parent.parent / "data" / "semantics" / "lifetimes.json"
PROBES = {probe["probe"]: probe for probe in json.loads(DATA.read_text())["probes"]}
MIB_OF_INTS = (1 << 17) - 1
DEADLINE_S = 20


@gomp.struct
class Obj:
    next: Obj
    id: int
    payload: gomp.Array[int]


@gomp.struct
class Small:
    next: Small
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


@gomp.struct
class Tiny:
    a: bool
    b: bool
    c: bool
    d: bool
    e: bool


def make(number=0, following=None):
    """An object with a MiB of its own."""
    return gomp.new(Obj, following, number, gomp.array(int, MIB_OF_INTS))


def heap_mib():
    return round(memstats.read().heap_alloc / (1 << 20))


def totals(name):
    indices = (0, layout.COORDINATOR_P)
    return sum(records.view(records.p_dtype, layout.p_addr(p))[0][name] for p in indices)


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.001)


def all_has_run():
    return (totals("special_queued") == totals("special_run") + totals("special_lost")).all()


class Events(list):
    """What happened; callable, to note something."""

    def __call__(self, what):
        self.append(str(what))

    def take(self):
        taken = list(self)
        self.clear()
        return taken

    def of_collections(self, n, first=1):
        """The probe's "r": what ``n`` collections have brought about."""
        rounds = []
        for number in range(first, first + n):
            gc.collect()  # Python's own
            collect_now()
            mib = heap_mib()
            wait_until(all_has_run)
            rounds.append({"events": self.take(), "gc": number, "heap_mib": mib})
        return rounds


def expected(name):
    return PROBES[name]["observed"]["r"]


def possible(name):
    return [expected(name), *(other["r"] for other in PROBES[name]["other_observed"])]


def finalize(events, obj, what):
    gomp.set_finalizer(obj, lambda _: events(what))


def clean(events, obj, what):
    return gomp.add_cleanup(obj, events, what)
