"""Goroutines that wait at channels in a heap of one process: made by hand, as their steps would have left them."""

from __future__ import annotations

import time

from heap_world import World

from gomp.core.gc import cycle, leaks, worker
from gomp.core.heap.gs import take_g
from gomp.core.heap.stack import push_frame
from gomp.core.heap.waitq import BUFFER, SIZE
from gomp.core.mutator.chan import CHAN_BYTES, CHAN_WOULD_BLOCK, receive, send
from gomp.core.mutator.types import find_type
from gomp.core.sched.status import OK, enter, leave
from gomp.core.shm import layout, records
from gomp.core.shm.atomics import store64
from gomp.core.shm.records import FRAME_HEADER, G_RUNNING, G_STATUS_MASK, G_WAITING, LEAKS_REVEAL, g_dtype, view

_SLOTS = 2
_NODE = 64


class Waiting:
    """In ``world``: channels and nodes, which have roots until these are dropped, and goroutines, by number."""

    def __init__(self, world: World) -> None:
        self.world = world
        size = FRAME_HEADER + 8 * _SLOTS
        self._frame = find_type(world._type(size, (3, 4), size, 0))
        self.sched = view(records.sched_dtype, records.SCHED)[0]

    def channel(self, p: int) -> tuple[int, int]:
        return self.world.new(p, CHAN_BYTES, self.world.struct_type(CHAN_BYTES, (0,)))

    def node(self, p: int, leads_to: int) -> tuple[int, int]:
        """An object with a reference."""
        root = self.world.new(p, _NODE, self.world.struct_type(_NODE, (0,)))
        store64(self.world.address(root), leads_to)
        return root

    def give_room(self, p: int, ch: int, n: int) -> None:
        """The channel at ``ch`` has a buffer for ``n`` numbers."""
        store64(ch + BUFFER, self.world.address(self.world.new_array(p, n, 0)))
        store64(ch + SIZE, n)

    def running(self, p: int, *slots: int) -> int:
        """Address of a goroutine that ``p`` runs, with these references in its frame."""
        self.world.be(p)
        assert enter() == OK
        number = take_g()
        g = layout.g_addr(number)
        frame = push_frame(g, self._frame)
        for i, addr in enumerate(slots):
            store64(frame + FRAME_HEADER + 8 * i, addr)
        record = view(g_dtype, g)[0]
        record.xstatus, record.p, record.home, record.id = G_RUNNING, p, 0, number
        self.world.ps[p].curg = g
        leave()
        return g

    def waiter(self, p: int, ch: int, *slots: int) -> int:
        """Number of one that waits to receive."""
        g = self.running(p, *slots)
        assert enter() == OK
        assert receive(ch, g) == CHAN_WOULD_BLOCK
        self.world.ps[p].curg = 0
        leave()
        return layout.g_number(g)

    def send(self, p: int, ch: int) -> None:
        """By P ``p``, which holds the channel: the first who waits there is ready."""
        self.world.be(p)
        assert enter() == OK
        send(ch, 7, 0)
        leave()

    # --- looking for leaks ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A cycle that looks for them."""
        leaks.want_leaks()
        self.world.begin_marking()

    def look(self) -> set[int]:
        """A whole such cycle: the numbers of those that it has found."""
        leaks.want_leaks()
        self.world.collect()
        return self.found()

    def found(self) -> set[int]:
        leaked = set()
        for number in range(1, int(self.sched.ngs) + 1):
            g = view(g_dtype, layout.g_addr(number))[0]
            if int(g.xstatus) & G_STATUS_MASK == G_WAITING and g.leaked:
                leaked.add(number)
        assert self.sched.leaked == len(leaked)
        return leaked

    def to_next_round(self) -> None:
        """Mark until the stacks are to be looked at again, or all is over."""
        with self.world.as_coordinator():
            self._dry()
            if cycle.may_be_done(_deadline()) == OK:
                cycle.stop_marking(_deadline())

    def to_reveal(self) -> None:
        while self.sched.leak_mode != LEAKS_REVEAL:
            self.to_next_round()

    @staticmethod
    def _dry() -> None:
        while worker.mark_step(1) != worker.DRY:
            pass


def _deadline() -> int:
    return time.monotonic_ns() + 10**10
