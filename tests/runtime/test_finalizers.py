"""Finalizers from Python: each probe of Go's behaviour, with the same outcome."""

from __future__ import annotations

import functools
import threading
import time

import pytest
from kernel_heap import collect_now
from lifetime_probes import DEADLINE_S, PROBES, Obj, Small, all_has_run, clean, expected, finalize, make, wait_until

import gomp


def test_fin_basic_1mib(events):
    finalize(events, make(), "fin1")
    assert events.of_collections(4) == expected("fin_basic_1MiB")


def test_fin_resurrect_1mib(events):
    kept = []

    def resurrect(obj):
        events("fin")
        kept.append(obj)

    gomp.set_finalizer(make(), resurrect)
    rounds = events.of_collections(2)
    kept.clear()
    assert rounds + events.of_collections(2) == expected("fin_resurrect_1MiB")


def test_fin_resurrect_reset_each_time(events):
    def again(n, obj):
        events(f"fin#{n}")
        if n < 3:
            gomp.set_finalizer(obj, functools.partial(again, n + 1))

    gomp.set_finalizer(make(), functools.partial(again, 1))
    assert events.of_collections(7) == expected("fin_resurrect_reset_each_time")


def test_fin_chain_a_to_b_to_c(events):
    c = make(3)
    b = make(2, c)
    a = make(1, b)
    for obj in (a, b, c):
        finalize(events, obj, f"fin{obj.id}")
    del a, b, c, obj
    assert events.of_collections(6) == expected("fin_chain_A_to_B_to_C")


def test_fin_chain_only_tail_has_finalizer(events):
    c = make(3)
    a = make(1, c)
    finalize(events, c, "fin3")
    del a, c
    assert events.of_collections(4) == expected("fin_chain_only_tail_has_finalizer")


@pytest.mark.parametrize("probe", ["fin_cycle_two_objects_both", "fin_cycle_two_objects_one"])
def test_fin_cycle_two_objects(events, probe):
    a, b = make(1), make(2)
    a.next, b.next = b, a
    finalize(events, a, "a")
    if probe.endswith("both"):
        finalize(events, b, "b")
    del a, b
    assert events.of_collections(4) == expected(probe)


def test_fin_self_cycle(events):
    a = make()
    a.next = a
    finalize(events, a, "fin")
    del a
    assert events.of_collections(4) == expected("fin_self_cycle")


def test_fin_self_cycle_small_object(events):
    a = gomp.new(Small)
    a.next = a
    finalize(events, a, "fin")
    del a
    assert events.of_collections(3) == expected("fin_self_cycle_small_object")


def test_fin_cycle_small_objects_both(events):
    a, b = gomp.new(Small), gomp.new(Small)
    a.next, b.next = b, a
    finalize(events, a, "a")
    finalize(events, b, "b")
    del a, b
    assert events.of_collections(3) == expected("fin_cycle_small_objects_both")


def test_fin_cycle_tail_hanging_off(events):
    a, b = make(1), make(2)
    a.next, b.next = b, a
    holder = make(0, a)
    finalize(events, holder, "finHolder")
    finalize(events, a, "a")
    del a, b, holder
    assert events.of_collections(3) == expected("fin_cycle_tail_hanging_off")


def test_cycle_reachable_from_object_with_finalizer(events):
    a, b = make(1), make(2)
    a.next, b.next = b, a
    holder = gomp.new(Obj, a)
    gomp.set_finalizer(holder, lambda obj: events(f"fin sees {obj.next.id} {obj.next.next.id}"))
    del a, b, holder
    assert events.of_collections(4) == expected("cycle_reachable_from_object_with_finalizer")


def test_fin_clear_with_nil(events):
    a = make()
    finalize(events, a, "fin")
    gomp.set_finalizer(a, None)
    gomp.set_finalizer(a, None)
    del a
    assert events.of_collections(3) == expected("fin_clear_with_nil")


def test_fin_order_same_cycle(events):
    objects = [gomp.new(Small) for _ in range(6)]
    for number, obj in enumerate(objects):
        finalize(events, obj, number)
    del objects, obj
    assert events.of_collections(2) == expected("fin_order_same_cycle")


def test_fin_blocking_blocks_others(events):
    go_on = threading.Event()

    def block(obj):
        events("start0")
        go_on.wait(DEADLINE_S)
        events("end0")

    gomp.set_finalizer(gomp.new(Small), block)
    collect_now()
    wait_until(lambda: events)
    first = events.take()
    objects = [gomp.new(Small) for _ in range(3)]
    for number, obj in enumerate(objects, 1):
        finalize(events, obj, f"fin{number}")
    del objects, obj
    collect_now()
    time.sleep(0.03)
    observed = PROBES["fin_blocking_blocks_others"]["observed"]
    assert [first, events.take()] == [r["events"] for r in observed["r"]]
    go_on.set()
    wait_until(all_has_run)
    assert events.take() == observed["after_unblock"]


def test_zero_size_and_global_objects_are_accepted_and_never_finalized(events):
    """Every object of gomp has an address of its own; a global is what never dies."""
    gomp.set_finalizer(gomp.Global("probe", Small), events)
    clean(events, gomp.Global("probe", Small), "cl")
    assert events.of_collections(2) == expected("global_finalizer") == expected("zero_size_object_finalizer")
    assert PROBES["X_cleanup_global"]["observed"]["stdout"]["r"] == expected("global_finalizer")
    assert PROBES["X_cleanup_zero_size"]["observed"]["exit"] == 0
