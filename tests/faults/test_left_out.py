"""Each step of the repair is left out in turn, and whoever looks at the heap after a death notices.

Runs with ``NUMBA_DISABLE_JIT=1``. A step is left out of the same deaths as in the tests of every line: of one of them something fails, crashes or
hangs, which with that step does not.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import inspect
import os
import random
import signal
import textwrap
from collections.abc import Callable
from functools import partial

import pytest
import test_every_line as heap
import test_wait_between_lines as waits
import victims
import victims_of_objects
from heap_world import heap_world
from killed import kill_at, lines_of, some_of
from victims import SURVIVOR, VICTIM, in_kernel

from gomp.core import COMPILED
from gomp.core.gc import limiter, rebuild, repair
from gomp.core.heap import mspan
from gomp.core.heap.palloc import set_alloc_range_locked
from gomp.core.mutator import select
from gomp.core.sched.status import try_claim, unclaim
from gomp.core.shm import layout, records
from gomp.core.shm.records import CHAN_DONE, LIMITER, limiter_dtype, view

if COMPILED:
    pytest.skip("needs NUMBA_DISABLE_JIT=1", allow_module_level=True)

HANGS_S = 8
SLOWEST_S = 60  # of one that is to end well, on a machine with much to do
SECOND_NS = 1_000_000_000
Death = Callable[[], object]  # and what is looked at afterwards


# --- deaths -----------------------------------------------------------------------------------------------------------


def of(scenario, within) -> Callable[[], list[Death]]:
    """Before lines of the files with ``within`` in their name."""
    return lambda: [partial(heap.kill_and_go_on, scenario, n) for n in heap.points(scenario, within)]


def of_who_waits(scenario, within) -> Callable[[], list[Death]]:
    def deaths() -> list[Death]:
        with heap_world(nprocs=2) as world:
            body, _ = scenario(waits.Scene(world))
            lines = lines_of(body)
        return [partial(waits.kill_and_look, scenario, n) for n in some_of(lines) if within in lines[n][0]]

    return deaths


def claims_another(world):
    p = layout.p_addr(SURVIVOR)
    return in_kernel(world, lambda: try_claim(p) and unclaim(p))


def limiting_begins(world):
    record = view(limiter_dtype, LIMITER)[0]
    limiter.add_assist_time(3 * SECOND_NS)

    def check():
        assert record.xlimiting == (record.filled == record.capacity)

    world.also_check = check
    return in_kernel(world, lambda: limiter.update(int(record.xlast_update) + SECOND_NS))


def starts_a_goroutine(s):
    return lambda: s.goroutine(VICTIM), bool


def whose_stack_another_wakes() -> list[Death]:
    """It scans the stack of a goroutine that somebody makes ready before the world is stopped for the repair."""

    def scene(world):
        s = waits.Scene(world)
        g = s.goroutine(SURVIVOR)
        assert s.selects(SURVIVOR, g) == select.WAITS
        world.begin_marking()
        return s, g, victims.passed_barrier(world, victims.marks)

    def death(n: int) -> None:
        with heap_world(nprocs=2) as world:
            s, g, marks = scene(world)
            assert kill_at(marks, n)
            world.be(layout.COORDINATOR_P)
            repair.bury(layout.p_addr(VICTIM))
            assert s.sends(SURVIVOR, s.a, 7) == CHAN_DONE
            heap.be_repaired(world)
            assert s.ends(g) == (0, 7)

    with heap_world(nprocs=2) as world:
        lines = lines_of(scene(world)[2])
    return [partial(death, n) for n in some_of(lines) if "stackscan" in lines[n][0]]


def while_another_takes_pages() -> list[Death]:
    def death() -> None:
        with heap_world(nprocs=2) as world:
            victims.fill(world, SURVIVOR, 3000, 1)
            page = int(world.mheap.end_page) - 1
            set_alloc_range_locked(page, 1)
            world.ps[SURVIVOR].taking_page, world.ps[SURVIVOR].taking_npages = page, 1
            heap.be_repaired(world)
            chunk, word = divmod(page, layout.CHUNK_PAGES)
            assert int(records.chunks()[chunk].alloc[word >> 6]) >> (page & 63) & 1

    return [death]


# --- steps ------------------------------------------------------------------------------------------------------------


def nothing(*args):
    return 0


def keep_what_it_was_taking(p):
    page = records.p_at(p).taking_page
    settle(p)
    records.p_at(p).taking_page = page


def keep_its_mcache(p):
    if p != layout.p_addr(VICTIM):
        flush_mcache(p)


def take_what_it_had_begun_for_zero(p):
    entries = [records.mcache_at(rebuild.entry_addr(p, c)).page for c in range(layout.NUM_SPAN_CLASSES)]
    before = {page: records.spans()[page].needzero for page in entries if page != mspan.NO_SPAN}
    flush_mcache(p)
    for page, needzero in before.items():
        records.spans()[page].needzero = needzero


def keep_its_page_cache(p):
    if p != layout.p_addr(VICTIM):
        return_cached_pages(p)


settle, flush_mcache, return_cached_pages = repair._settle, rebuild._flush_mcache, rebuild._return_cached_pages
LEFT_OUT = {  # which step, what is done instead, and of which deaths
    "its claims are not released": (repair, "release_claims_of", nothing, of(claims_another, "status")),
    "its locks are not released": (repair, "release_locks_of", nothing, of(victims.names, "mutator")),
    "its locks of maps are not released": (
        repair, "release_map_locks_of", nothing, of(victims_of_objects.map_insertions, "hashmap"),
    ),
    "the stack it scanned stays its own": (repair, "let_go_of_stack", nothing, whose_stack_another_wakes),
    "its redo record is not applied": (repair, "apply_redo", nothing, of(victims.sweep_many, "redo")),
    "its handles are not dropped": (repair, "_drop_handles", nothing, of(victims.small_in_a_fresh_span, "status")),
    "what its record says of it stays": (repair, "forget_process_stw", nothing, of(victims.small_in_a_fresh_span, "mcache")),
    "what it was taking stays taken": (repair, "_settle", keep_what_it_was_taking, of(victims.growth, "mheap")),
    "what another takes is not kept": (rebuild, "_keep_taken_pages", nothing, while_another_takes_pages),
    "its mcache is not emptied": (rebuild, "_flush_mcache", keep_its_mcache, of(victims.small_in_the_next_window, "mcache")),
    "what it had begun counts as zero": (
        rebuild, "_flush_mcache", take_what_it_had_begun_for_zero, of(victims.typed_by_a_header, "malloc"),
    ),
    "its page cache is not returned": (rebuild, "_return_cached_pages", keep_its_page_cache, of(victims.large, "mheap")),
    "lists of spans are not emptied": (rebuild, "reset_mcentrals_stw", nothing, of(victims.small_in_a_fresh_span, "status")),
    "free stacks are not forgotten": (rebuild, "forget_free_stacks_stw", nothing, of_who_waits(starts_a_goroutine, "")),
    "pages are not forgotten": (rebuild, "_forget_pages", nothing, of(victims.growth, "mheap")),
    "spans in hand are not found": (rebuild, "_rebuild_spans", nothing, of(victims.sweep_many, "sweep")),
    "pages in hand are not released": (rebuild, "_punch_unknown_pages", nothing, of(victims.large, "mheap")),
    "summaries are not made again": (rebuild, "rebuild_summaries_locked", nothing, of(victims.growth, "palloc")),
    "counters are not made again": (rebuild, "_rebuild_counters", nothing, of(victims.growth, "mheap")),
    "work buffers are not made again": (
        rebuild, "_rebuild_work_buffers", nothing, of(victims.marking_with_work_given_away, "work"),
    ),
    "lists of specials are not made again": (
        rebuild, "rebuild_specials_stw", nothing, of(victims_of_objects.sweep_of_specials, "specials"),
    ),
    "goroutines are not settled": (rebuild, "rebuild_gs_stw", nothing, of_who_waits(waits.wakes, "")),
    "functions of the dead are not lost": (
        repair, "lose_specials_of_stw", nothing, of(victims_of_objects.finalizers_run, "lifetimes"),
    ),
    "what limits is not said": (limiter, "repair_stw", nothing, of(limiting_begins, "limiter")),
    "marking is not started over": (repair, "restart_marking_stw", nothing, of(victims.marking, "worker")),
    "nothing is made again": (repair, "rebuild_derived_stw", nothing, of(victims.refill_by_sweeping, "refill")),
}  # fmt: skip
DONE_TWICE = {
    "reset_mcache",  # an mcache that was flushed is empty, and the next process of the P begins with a new one
    "forget_lazy_locked",  # who looks once more for pages that are returned lazily finds none
}
NO_STEPS = {
    "store_release", "store_seq_cst", "futex_wake", "load_acquire", "load_relaxed", "nanotime", "is_tracing", "tell",
    "nth_p", "p_at", "p_records", "gcstats", "range",
}  # fmt: skip


@pytest.mark.parametrize("left_out", LEFT_OUT)
def test_a_repair_without_one_of_its_steps_is_noticed(left_out, monkeypatch):
    faulthandler.cancel_dump_traceback_later()  # it may take a minute, and a dump of a process that is traced crashes it
    module, name, instead, deaths = LEFT_OUT[left_out]
    found = deaths()
    monkeypatch.setattr(module, name, instead)
    noticed = next((death for death in random.Random(2).sample(found, len(found)) if not ends_well(death)), None)
    assert noticed is not None, f"{name} is not missed in any of {len(found)} deaths"
    monkeypatch.undo()
    assert ends_well(noticed, SLOWEST_S), f"with {name}, too, something is wrong"


def test_no_step_is_forgotten():
    steps = {
        step
        for part in (repair.bury, repair.repair_stw, repair._settle, rebuild.rebuild_derived_stw)
        for step in called(part)
    }
    assert steps - NO_STEPS == {name for _, name, *_ in LEFT_OUT.values()} | DONE_TWICE


def called(function) -> set[str]:
    """Names of what it calls."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    calls = [call.func for statement in tree.body for call in ast.walk(statement) if isinstance(call, ast.Call)]
    return {func.attr if isinstance(func, ast.Attribute) else func.id for func in calls}


def ends_well(death: Death, within_s: int = HANGS_S) -> bool:
    """In a process of its own: it may fail, crash or hang."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(within_s)
        with contextlib.suppress(BaseException):
            death()
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
