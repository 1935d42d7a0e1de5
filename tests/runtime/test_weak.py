"""Weak pointers and ``keep_alive`` from Python: each probe of Go's behaviour, with the same outcome."""

from __future__ import annotations

from kernel_heap import collect_now
from lifetime_probes import PROBES, Small, expected, make

import gomp


def test_weak_basic(events):
    obj = make()
    pointer = gomp.weak(obj)
    observed = PROBES["weak_basic"]["observed"]
    assert (pointer.value() is obj or pointer.value() == obj) is observed["before"]
    del obj
    rounds = events.of_collections(1)
    assert (pointer.value() is None, rounds[0]["heap_mib"]) == (observed["nil_after_gc_1"], observed["heap_after_gc_1"])


def test_weak_with_finalizer(events):
    obj = make()
    pointer = gomp.weak(obj)
    gomp.set_finalizer(obj, lambda _: events(f"fin weak_nil={str(pointer.value() is None).lower()}"))
    del obj
    assert events.of_collections(3) == expected("weak_with_finalizer")


def test_weak_resurrected(events):
    kept = []
    obj = make()
    old = gomp.weak(obj)

    def resurrect(obj):
        kept.append(obj)
        new = gomp.weak(obj)
        said = (old.value() is None, new.value() is None, old == new)
        events("old_nil={} new_nil={} equal={}".format(*(str(word).lower() for word in said)))

    gomp.set_finalizer(obj, resurrect)
    del obj
    assert events.of_collections(2) == expected("weak_resurrected")
    assert old.value() is None


def test_weak_with_cleanup(events):
    obj = make()
    pointer = gomp.weak(obj)
    gomp.add_cleanup(obj, lambda _: events(f"cl weak_nil={str(pointer.value() is None).lower()}"), None)
    del obj
    assert events.of_collections(2) == expected("weak_with_cleanup")


def test_weak_equality(events):
    a, b = gomp.new(Small), gomp.new(Small)
    first, second, other = gomp.weak(a), gomp.weak(a), gomp.weak(b)
    inner, same_inner = gomp.weak(gomp.pointer(a, "c")), gomp.weak(gomp.pointer(a, "c"))
    found = {
        "same_object_equal_alive": first == second,
        "different_objects_equal_alive": first == other,
        "interior_equal": inner == same_inner and inner != first,
        "interior_pointer_value_ok": inner.value() == gomp.pointer(a, "c"),
        "make_nil_equals_zero": gomp.weak(None) == gomp.weak(None),
    }
    hashes = [hash(pointer) for pointer in (first, inner)]
    del a, b
    collect_now()
    found |= {
        "all_nil_dead": not any(pointer.value() for pointer in (first, second, other, inner)),
        "same_object_equal_dead": first == second,
        "different_objects_equal_dead": first == other,
        "interior_equal_dead": inner == same_inner,
        "dead_equals_zero_value": first == gomp.weak(None),
    }
    assert found == PROBES["weak_equality"]["observed"]
    assert hashes == [hash(pointer) for pointer in (second, same_inner)]


def test_weak_global(events):
    named = gomp.Global("weak", Small)
    pointer = gomp.weak(named)
    events.of_collections(2)
    assert (pointer.value() is None) is PROBES["weak_global"]["observed"]["global_value_nil_after_2_gcs"]


def test_keepalive(events):
    def scope():
        obj = gomp.new(Small)
        pointer = gomp.weak(obj)
        collect_now()
        before = pointer.value() is None
        gomp.keep_alive(obj)
        return before, pointer

    before, pointer = scope()
    collect_now()
    observed = PROBES["keepalive"]["observed"]
    assert (before, pointer.value() is None) == (observed["nil_before_KeepAlive"], observed["nil_after_scope"])
