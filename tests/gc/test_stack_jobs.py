"""The stacks of goroutines as roots, when something happens to one as a marker comes to it."""

from __future__ import annotations

import pytest
from heap_world import heap_world
from waiting_world import Waiting

from gomp.core import COMPILED
from gomp.core.gc import stackscan
from gomp.core.mutator import schedule
from gomp.core.mutator.pythoncalls import root_address
from gomp.core.sched.runq import runq_put
from gomp.core.sched.status import OK
from gomp.core.shm import layout
from gomp.core.shm.atomics import cas_acq_rel
from gomp.core.shm.records import G_RUNNABLE, G_WAITING, NOT_WAITING, WAITS_FOR_STEP, g_at

NIL = 0


@pytest.mark.skipif(COMPILED, reason="looks into a kernel")
def test_one_that_is_made_ready_just_then_is_scanned_all_the_same(monkeypatch):
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        waiting = Waiting(world)
        node = waiting.node(0, NIL)
        g = layout.g_addr(waiting.waiter(0, NIL, world.address(node)))
        world.drop(node)
        world.begin_marking()
        made_ready = []

        def cas_after_it_was(at, was, becomes):
            if at == g and was == G_WAITING and not made_ready:
                made_ready.append(cas_acq_rel(g, G_WAITING, G_RUNNABLE))
                g_at(g).wait = NOT_WAITING
            return cas_acq_rel(at, was, becomes)

        monkeypatch.setattr(stackscan, "cas_acq_rel", cas_after_it_was)
        assert world.finish_marking() == ()
        assert made_ready == [True]
        world.be(0)
        runq_put(layout.g_number(g), 0)
        assert world.verify().objects == 1


def test_what_python_takes_out_of_a_frame_is_marked_before_the_frame_is_gone():
    with heap_world(nprocs=2, max_pages=layout.ARENA_PAGES) as world:
        waiting = Waiting(world)
        node = waiting.node(0, NIL)
        addr = world.address(node)
        number = waiting.waiter(0, NIL, addr)
        world.drop(node)
        g_at(layout.g_addr(number)).wait = WAITS_FOR_STEP
        world.ps[0].strange = number
        world.begin_marking()
        world.scan_p(0)  # its handles are black
        world.be(0)
        assert root_address(addr, node[1]) == OK
        assert schedule.bury_strange(number) == OK
        assert world.finish_marking() == ()
        assert world.verify().objects == 1
