"""What the script does while its Ps are killed: the same as they do, and since it is not killed it knows exactly what must have come of it."""

from __future__ import annotations

import contextlib
import gc
import random
from concurrent import futures
from typing import Any

import gomp
from gomp.core.mutator import boundary
from gomp.runtime.handles import table
from gomp.runtime.transit import outbox
from tests.faults import crowd, errands, house, lifetimes, maps, parcels, pools
from tests.free_slots import free_slots

OWNER = 0
CALLS = 2  # of the executor that are on their way at a time
SETTLE_S = 30.0
MOST_HANDLES = 8  # of a process that has nothing to do


class Script:
    """The objects that all share, and what the script itself does with them. ``answered``: calls of the executor that came back."""

    def __init__(self, rt: gomp.Runtime, rng: random.Random) -> None:
        self.rt, self.rng = rt, rng
        maps.MAP.set(gomp.map(maps.Item))
        maps.CLAIMED.set(gomp.map(maps.Item))
        parcels.LETTERS.set(gomp.map(gomp.Bytes))
        errands.open_meeting()
        self.host = house.Host()
        self.executor = gomp.Executor(rt)
        self.calls: dict[futures.Future[Any], int] = {}
        self.answered = self.died = 0
        self.shift = Shift(OWNER, rng)
        self.crowd = crowd.Crowd()
        self.handles = count_handles()

    def step(self) -> None:
        self.shift.step()
        self.crowd.step()
        self._end([call for call in self.calls if call.done()])
        while len(self.calls) < CALLS:
            number = self.rng.randrange(10_000)
            self.calls[self.executor.submit(parcels.answer, parcels.make_parcel(number))] = number

    def _end(self, calls: list[futures.Future[Any]]) -> None:
        for call in calls:
            number = self.calls.pop(call)
            try:
                parcels.accept(number, call.result(60))
                self.answered += 1
            except parcels.GONE:
                self.died += 1

    def drain(self, procs: int) -> None:
        """End all that is under way, and see that it has come to its end in every process."""
        self._end(list(self.calls))
        self.executor.shutdown()
        maps.settle(OWNER, self.shift.end())
        errands.close_meeting()
        self.host.close()
        self.crowd.end()
        del self.shift, self.crowd, self.host
        if len(maps.MAP.get()):
            raise AssertionError(f"map: {list(maps.MAP.get())[:5]} are nobody's")
        for place in lifetimes.PLACES:
            place.set(None)
        parcels.open_all()
        gc.collect()  # what frames of exceptions hold here keeps objects of others
        self.settle_ps(procs)
        settle_process()
        for shared in (maps.MAP, maps.CLAIMED, parcels.LETTERS):
            shared.set(None)
        if count_handles() > self.handles:
            raise AssertionError(f"the script has {count_handles()} handles, and began with {self.handles}")
        self._check_counts()

    def settle_ps(self, procs: int) -> None:
        """On each P: who is busy with it leaves the next call to another."""
        settled: set[int] = set()
        while len(settled) < procs:
            settled |= {goroutine.wait(120) for goroutine in [self.rt.go(settle_p) for _ in range(procs)]}

    def _check_counts(self) -> None:
        stats = self.rt.stats()
        for name, kind in (("finalizers", stats.finalizers), ("cleanups", stats.cleanups)):
            if kind.failed or not kind.executed <= kind.queued <= kind.executed + kind.lost:
                raise AssertionError(f"{name}: {kind}")


class Shift:
    """What one goroutine does, or the script: a step at a time of everything that the heap is for."""

    def __init__(self, owner: int, rng: random.Random) -> None:
        self.writer = maps.Writer(owner, rng)
        self.user = pools.User(owner + 1)
        self.courier = parcels.Courier(owner, rng)
        self.registrar = lifetimes.Registrar(owner, rng)
        self.errands = [errands.Errands(rng)]
        if owner != OWNER:  # the script has the host, and would wait for itself
            self.errands.append(house.Guest(rng))
        self.rng = rng

    def step(self) -> None:
        for part in (self.writer, self.user, self.courier, self.registrar, *self.errands):
            part.step()
        crowd.talk(self.rng.randrange(10_000))

    def do_all_errands(self) -> None:
        """Each once."""
        for some in self.errands:
            for errand in some.all:
                with contextlib.suppress(TimeoutError):
                    errand()

    def end(self) -> list[int]:
        """How far it came with the map."""
        self.user.end()
        return self.writer.done


def count_handles() -> int:
    gc.collect()
    outbox.settle()
    return sum(1 for slot in range(boundary.handles_in_use()) if table.words[slot] != 0)


def settle_process() -> None:
    """Nothing is held here any more: what was registered has run, and what was sent was received. Raises AssertionError."""
    lifetimes.LEDGER.settle(SETTLE_S)
    handles = count_handles()
    if len(outbox):
        raise AssertionError(f"{len(outbox)} references are in transit, and nobody is on the way to receive them")
    free = boundary.handles_in_use() - free_slots()
    if free > handles + MOST_HANDLES:
        raise AssertionError(f"{free} slots are taken, and {handles} are in use")


def settle_p() -> int:
    """As settle_process, on a P; its number."""
    settle_process()
    handles = count_handles()
    if handles > MOST_HANDLES:
        raise AssertionError(f"P{table.p_idx} does nothing, and holds {handles} references")
    return table.p_idx
