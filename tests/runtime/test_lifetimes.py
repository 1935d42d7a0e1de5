"""What finalizers, cleanups and weak pointers share: tiny objects, threads, the end; and that each probe of Go has a test."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path

import pytest
from kernel_heap import collect_now
from lifetime_probes import DEADLINE_S, PROBES, Small, Tiny, clean, finalize, totals, wait_until

import gomp
from gomp.core.gc.specials import CLEANUPS, FINALIZERS
from gomp.core.shm import records
from gomp.runtime.callbacks import callbacks

# --- tiny objects -----------------------------------------------------------------------------------------------------


def tiny_objects():
    """Thirty of 5 bytes, three a block; a whole block first, so that none shares one with what is older. Every third is kept."""
    return [gomp.new(Tiny) for _ in range(30)]


def test_tiny_batch_finalizers(events):
    objects = tiny_objects()
    for number, obj in enumerate(objects):
        finalize(events, obj, number)
    kept = objects[1::3]
    del objects, obj
    assert [r["events"] for r in events.of_collections(3)] == [[], [], []]
    kept.clear()
    rounds = [r["events"] for r in events.of_collections(3)]
    assert rounds == [[str(n) for n in reversed(range(30))], [], []]


def test_tiny_batch_cleanups(events):
    objects = tiny_objects()
    for number, obj in enumerate(objects):
        clean(events, obj, number)
    kept = objects[1::3]
    del objects, obj
    assert [r["events"] for r in events.of_collections(3)] == [[], [], []]
    kept.clear()
    assert [r["events"] for r in events.of_collections(2)] == [[str(n) for n in range(30)], []]


def test_tiny_batch_weak(events):
    objects = tiny_objects()
    pointers = [gomp.weak(obj) for obj in objects]
    kept = objects[1::3]
    del objects
    collect_now()
    observed = PROBES["tiny_batch_weak"]["observed"]
    assert sum(p.value() is None for p in pointers) == observed["nil_after_gc1_one_of_three_kept"]
    gc.collect()
    kept.clear()
    collect_now()
    assert sum(p.value() is None for p in pointers) == 30


# --- threads ----------------------------------------------------------------------------------------------------------


def test_finalizer_goroutine_created_lazily(events):
    before = threading.active_count()
    assert before == threading.active_count()
    gomp.set_finalizer(gomp.new(Small), lambda _: events(threading.current_thread().name))
    assert threading.active_count() == before + 1
    assert events.of_collections(1)[0]["events"] == ["gomp-finalizers"]


@pytest.mark.parametrize(
    ("kind", "probe"), [(FINALIZERS, "finalizers_many_serial"), (CLEANUPS, "cleanups_many_parallel")]
)
def test_many_run_one_at_a_time_with_few_ps(events, kind, probe):
    running, most = [], []

    def busy(_):
        running.append(1)
        most.append(len(running))
        time.sleep(0.0001)
        running.pop()

    for _ in range(300):
        obj = gomp.new(Small)
        if kind == FINALIZERS:
            gomp.set_finalizer(obj, busy)
        else:
            gomp.add_cleanup(obj, busy, None)
    del obj
    events.of_collections(1)
    observed = PROBES[probe]["observed"]
    assert (
        max(most)
        == observed.get("max_concurrent", observed.get("max_concurrent_gomaxprocs", [0])[0] if kind else 0)
        == 1
    )
    assert len(most) == 300


def test_more_ps_have_more_cleanup_threads(events):
    records.view(records.runtime_dtype, records.RUNTIME)[0].nprocs = 8
    both = threading.Barrier(2, timeout=DEADLINE_S)
    for _ in range(2):
        gomp.add_cleanup(gomp.new(Small), lambda _: events(both.wait() >= 0), None)
    collect_now()
    wait_until(lambda: len(events) == 2)
    records.view(records.runtime_dtype, records.RUNTIME)[0].nprocs = 1


@pytest.mark.parametrize("probe", ["X_finalizer_panics", "X_cleanup_panics"])
def test_a_function_that_raises_is_logged_and_does_not_stop_the_queue(events, caplog, probe):
    """Go ends the program with the panic; here the process belongs to somebody else's program too."""
    boom = PROBES[probe]["observed"]["stderr_head"][0].removeprefix("panic: ")

    def fail(_):
        raise RuntimeError(boom)

    for what in ("before", None, "after"):
        obj = gomp.new(Small)
        function = fail if what is None else lambda _, what=what: events(what)
        if "finalizer" in probe:
            gomp.set_finalizer(obj, lambda obj, function=function: function(obj))
        else:
            gomp.add_cleanup(obj, function, None)
    del obj
    with caplog.at_level(logging.ERROR):
        assert sorted(events.of_collections(1)[0]["events"]) == ["after", "before"]
    assert "Traceback" in caplog.text
    assert f"RuntimeError: {boom}" in caplog.text
    assert totals("special_failed").sum() == 1


# --- the end ----------------------------------------------------------------------------------------------------------


def test_threads_and_functions_end_with_the_runtime(events):
    finalize(events, gomp.new(Small), 1)
    clean(events, gomp.new(Small), 2)
    threads = [t for t in threading.enumerate() if t.name.startswith("gomp-")]
    assert len(threads) == 2
    callbacks.end()
    assert not any(t.is_alive() for t in threads)
    collect_now()
    assert events == []


def test_every_probe_has_a_test():
    """By name: each is asked for by a test, or has a function of its own."""
    source = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    without_equivalent = {"X_finalizer_nil_ptr"}  # None has no type: a typed nil pointer cannot be written
    assert {name for name in PROBES if name not in source} - without_equivalent == set()
