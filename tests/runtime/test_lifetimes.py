"""Finalizers, cleanups and weak pointers from Python: each probe of Go's behaviour, with the same outcome."""

from __future__ import annotations

import functools
import gc
import json
import logging
import threading
import time
from pathlib import Path

import pytest
from kernel_heap import collect_now

import gomp
from gomp.core.gc.specials import CLEANUPS, FINALIZERS
from gomp.core.shm import layout, records
from gomp.errors import CleanupError, FinalizerError
from gomp.runtime import memstats
from gomp.runtime.callbacks import callbacks

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


@pytest.fixture
def events(heap):
    return Events()


def expected(name):
    return PROBES[name]["observed"]["r"]


def possible(name):
    return [expected(name), *(other["r"] for other in PROBES[name]["other_observed"])]


def finalize(events, obj, what):
    gomp.set_finalizer(obj, lambda _: events(what))


def clean(events, obj, what):
    return gomp.add_cleanup(obj, events, what)


# --- finalizers -------------------------------------------------------------------------------------------------------


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


def test_zero_size_and_global_objects_are_accepted_and_never_finalized(events):
    """Every object of gomp has an address of its own; a global is what never dies."""
    gomp.set_finalizer(gomp.Global("probe", Small), events)
    clean(events, gomp.Global("probe", Small), "cl")
    assert events.of_collections(2) == expected("global_finalizer") == expected("zero_size_object_finalizer")
    assert PROBES["X_cleanup_global"]["observed"]["stdout"]["r"] == expected("global_finalizer")
    assert PROBES["X_cleanup_zero_size"]["observed"]["exit"] == 0


# --- cleanups ---------------------------------------------------------------------------------------------------------


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


# --- weak pointers ----------------------------------------------------------------------------------------------------


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
    rounds = events.of_collections(2)
    assert [r["events"] for r in rounds] == [r["events"] for r in expected("weak_with_cleanup")]


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


# --- what is refused --------------------------------------------------------------------------------------------------


def message(probe):
    """Go's, without what it calls this kind of end."""
    observed = PROBES[probe]["observed"]
    line = observed["stderr_head"][0] if observed.get("stderr_head") else observed["stdout"]["recovered"]
    return line.removeprefix("fatal error: ").removeprefix("panic: ").replace("*main.obj", "Small")


def two(a: Small, b: Small) -> None: ...


def of_int(n: int) -> None: ...


REFUSED = {
    "X_finalizer_nil": lambda: gomp.set_finalizer(None, print),
    "X_finalizer_nonpointer": lambda: gomp.set_finalizer(3, print),
    "X_finalizer_interior_pointerful": lambda: gomp.set_finalizer(gomp.pointer(gomp.new(Obj), "payload"), len),
    "X_finalizer_not_func": lambda: gomp.set_finalizer(gomp.new(Small), 3),
    "X_finalizer_wrong_type": lambda: gomp.set_finalizer(gomp.new(Small), of_int),
    "X_finalizer_two_args": lambda: gomp.set_finalizer(gomp.new(Small), two),
    "X_double_finalizer": lambda: twice(gomp.new(Small)),
    "X_cleanup_nil": lambda: gomp.add_cleanup(None, print, 1),
    "X_cleanup_arg_is_ptr": lambda: cleaned_with_itself(gomp.new(Small)),
    "X_cleanup_arg_interior": lambda: cleaned_with_its_field(gomp.new(Small)),
}


def twice(obj):
    for _ in range(2):
        gomp.set_finalizer(obj, len)


def cleaned_with_itself(obj):
    gomp.add_cleanup(obj, print, obj)


def cleaned_with_its_field(obj):
    gomp.add_cleanup(obj, print, gomp.pointer(obj, "c"))


@pytest.mark.parametrize("probe", REFUSED)
def test_what_go_refuses_is_refused_with_its_message(heap, probe):
    with pytest.raises(
        FinalizerError if "fin" in probe.split("_")[1] or "double" in probe else CleanupError
    ) as refused:
        REFUSED[probe]()
    assert str(refused.value) == message(probe)


def test_recovering_from_a_refusal(heap):
    obj = gomp.new(Small)
    with pytest.raises(CleanupError) as refused:
        cleaned_with_itself(obj)
    assert str(refused.value) == message("X_recover_cleanup_arg")
    assert message("X_recover_double_finalizer") == message("X_double_finalizer")


def test_a_pointer_to_what_may_be_tiny_can_have_a_finalizer(events):
    """X_finalizer_interior_int: accepted, as it could be an object of its own in a block of tiny ones."""
    assert PROBES["X_finalizer_interior_int"]["observed"]["exit"] == 0
    obj = gomp.new(Obj)
    address = gomp.pointer(obj, "id").address
    gomp.set_finalizer(gomp.pointer(obj, "id"), lambda pointer: events(pointer.address == address))
    del obj
    assert events.of_collections(1)[0]["events"] == ["True"]


def test_a_variadic_function_is_no_finalizer(heap):
    with pytest.raises(FinalizerError, match="because dotdotdot"):
        gomp.set_finalizer(gomp.new(Small), lambda *objects: None)


class Holder:
    def __init__(self, obj):
        self.obj = obj

    def clean(self, arg):
        pass


def test_a_cleanup_that_holds_its_object_is_refused(heap):
    obj = gomp.new(Small)
    same = gomp.pointer(obj, "c")
    for function in (
        lambda _: obj,
        lambda _: same,
        lambda _, kept=obj: kept,
        functools.partial(print, obj),
    ):
        with pytest.raises(CleanupError, match="closes over ptr, cleanup will never run"):
            gomp.add_cleanup(obj, function, None)
    gomp.add_cleanup(obj, functools.partial(print, gomp.new(Small)), None).stop()


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


def test_what_cannot_die_is_a_type_error(heap):
    with pytest.raises(TypeError, match="int is no pointer"):
        gomp.weak(3)
    with pytest.raises(TypeError, match="int is no pointer"):
        gomp.add_cleanup(3, print, 1)
    with pytest.raises(TypeError, match="give an object and the name of one of its fields"):
        gomp.pointer(gomp.new(Small), "nothing")


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
    """By name: each is asked for by a test above, or has a function of its own here."""
    source = Path(__file__).read_text()
    without_equivalent = {"X_finalizer_nil_ptr"}  # None has no type: a typed nil pointer cannot be written
    assert {name for name in PROBES if name not in source} - without_equivalent == set()
