"""Cleanups from Python: each probe of Go's behaviour, with the same outcome."""

from __future__ import annotations

import threading
import time

from kernel_heap import collect_now
from lifetime_probes import (
    DEADLINE_S,
    PROBES,
    Small,
    all_has_run,
    clean,
    expected,
    finalize,
    make,
    possible,
    wait_until,
)

import gomp


def test_cleanup_basic_1mib(events):
    clean(events, make(), "cl7")
    assert events.of_collections(3) == expected("cleanup_basic_1MiB")


def test_cleanup_cycle(events):
    a, b = make(1), make(2)
    a.next, b.next = b, a
    clean(events, a, "clA")
    clean(events, b, "clB")
    del a, b
    assert events.of_collections(3) in possible("cleanup_cycle")


def test_cleanup_chain_a_to_b(events):
    b = make(2)
    a = make(1, b)
    clean(events, b, "clB")
    clean(events, a, "clA")
    del a, b
    rounds = events.of_collections(3)
    assert sorted(rounds[0]["events"]) == ["clA", "clB"]
    assert [r["heap_mib"] for r in rounds] == [r["heap_mib"] for r in expected("cleanup_chain_A_to_B")]


def test_cleanup_multiple_on_one_object(events):
    obj = gomp.new(Small)
    for number in range(6):
        clean(events, obj, number)
    del obj
    assert events.of_collections(2) == expected("cleanup_multiple_on_one_object")


def test_cleanup_stop(events):
    obj = gomp.new(Small)
    clean(events, obj, "cl1")
    second = clean(events, obj, "cl2")
    second.stop()
    second.stop()
    del obj
    assert events.of_collections(2) == expected("cleanup_stop")
    second.stop()


def test_cleanup_arg_keeps_other_object(events):
    gomp.add_cleanup(gomp.new(Small), lambda other: events(f"cl sees {other.id}"), make(2))
    assert events.of_collections(3) == expected("cleanup_arg_keeps_other_object")


def test_cleanup_and_finalizer_on_same_object(events):
    obj = make()
    finalize(events, obj, "finalizer")
    clean(events, obj, "cleanup")
    del obj
    assert events.of_collections(4) == expected("cleanup_and_finalizer_on_same_object")


def test_cleanup_and_resurrecting_finalizer(events):
    kept = []

    def resurrect(obj):
        events("finalizer")
        kept.append(obj)

    obj = make()
    gomp.set_finalizer(obj, resurrect)
    clean(events, obj, "cleanup")
    del obj
    rounds = events.of_collections(2)
    kept.clear()
    assert rounds + events.of_collections(2) == expected("cleanup_and_resurrecting_finalizer")


def test_cleanup_blocking_blocks_others(events):
    go_on = threading.Event()

    def block(_):
        events("start0")
        go_on.wait(DEADLINE_S)
        events("end0")

    gomp.add_cleanup(gomp.new(Small), block, None)
    collect_now()
    wait_until(lambda: events)
    first = events.take()
    objects = [gomp.new(Small) for _ in range(3)]
    for number, obj in enumerate(objects, 1):
        clean(events, obj, f"cl{number}")
    del objects, obj
    collect_now()
    time.sleep(0.03)
    observed = PROBES["cleanup_blocking_blocks_others"]["observed"]
    assert [first, events.take()] == [r["events"] for r in observed["r"]]
    go_on.set()
    wait_until(all_has_run)
    assert events.take() == observed["after_unblock"]
