"""A heap world, and what the Python layer does with the kernels of finalizers, cleanups and weak pointers. Functions are numbers."""

from __future__ import annotations

import contextlib

from heap_world import heap_world

from gomp.core.mutator import boundary, weak
from gomp.core.mutator import lifetimes as kernels
from gomp.core.sched.status import OK
from gomp.core.shm import layout, records


class Lifetimes:
    def __init__(self, world):
        self.world = world

    def finalizer(self, root, number, tiny=0):
        self.world.be(root[0])
        return kernels.set_finalizer(root[1], 0, number, tiny, 0)

    def cleanup(self, root, number, offset=0):
        self.world.be(root[0])
        return kernels.add_cleanup(root[1], offset, number)

    def weak(self, root, offset=0):
        """A root for the weak handle."""
        self.world.be(root[0])
        slot = self.world._free_slot(root[0])
        if weak.find_weak(root[1], offset, slot) == weak.NIL:
            self.world._free[root[0]].append(slot)
            box = self.world.new(root[0], 16)
            assert weak.add_weak(root[1], offset, box[1]) == OK
            return box
        return root[0], slot

    def value(self, box):
        """A root for what the weak handle leads to, or None."""
        self.world.be(box[0])
        slot = self.world._free_slot(box[0])
        if weak.weak_value(box[1], slot) == weak.NIL:
            self.world._free[box[0]].append(slot)
            return None
        return box[0], slot

    def run(self, p=0):
        """What is due on P ``p``, finalizers first; each one's object lives until the next is taken."""
        self.world.be(p)
        ran = []
        while (slot := self.world._free_slot(p)) >= 0 and (n := kernels.take_finalizer(slot)) != 0:
            ran.append(("finalizer", int(kernels.function_of(n % kernels.TO_FORGET))))
            assert kernels.finish_special(n % kernels.TO_FORGET, 0) == OK
            self.world.drop((p, slot))
        self.world._free[p].append(slot)
        while (n := kernels.take_cleanup()) != 0:
            ran.append(("cleanup", int(kernels.function_of(n))))
            assert kernels.finish_special(n, 0) == OK
        return ran

    def states(self):
        n = int(self.world.runtime.nspecials)
        return [int(s) for s in records.view(records.special_dtype, layout.SPECIALS_BASE, n)["xstate"]] if n else []

    def link(self, a, word, b):
        self.world.be(a[0])
        assert boundary.write_reference(a[1], 8 * word, b[1]) == OK

    def collect_and_run(self):
        self.world.collect()
        self.world.verify()
        ran = self.run()
        self.world.verify()
        return ran


@contextlib.contextmanager
def lifetimes(nprocs=1, **options):
    with heap_world(nprocs, **options) as world:
        yield Lifetimes(world)


def drop_all_but(x, roots):
    """Let go of everything that P 0 holds, but these."""
    keep = {root[1] for root in roots}
    for slot, addr in enumerate(x.world.handles(0)):
        if addr and slot not in keep:
            x.world.drop((0, slot))
