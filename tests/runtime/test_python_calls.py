"""A compiled program that has Python do something, and what Python may do meanwhile: collect, run other programs, switch threads, raise."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading

import pytest
from kernel_heap import collect_now
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, Signature, infer_global
from numba.extending import lower_builtin

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import GCSTATS, RUNTIME, gcstats_dtype, p_dtype, runtime_dtype, view
from gomp.errors import CompileError, OutOfMemory
from gomp.runtime import pythoncalls
from gomp.runtime.compiled import compiled
from gomp.runtime.polling import keep_on_stack
from gomp.runtime.pythoncalls import Argument, PythonCall, argument_of, call_python
from gomp.runtime.reftypes import SlotType
from gomp.runtime.structs import new, struct
from gomp.runtime.verify import verify


@struct
class Node:
    next: Node
    value: int


# --- a call of any function, for these tests: gomp's own call only what registers finalizers and cleanups -----------------


def have_python(function, arg):
    return function(arg)


def _called(function, arg):
    return (function(arg),)


@infer_global(have_python)
class _HavePython(AbstractTemplate):
    def generic(self, args, kws):
        return Signature(types.int64, args, recvr=None)


@lower_builtin(have_python, types.Any, types.Any)
def _lower(context, builder, sig, args):
    if isinstance(sig.args[1], SlotType):
        keep_on_stack(builder, args[1], "given")
    call = PythonCall(_called, (argument_of(sig.args[0], "function"), argument_of(sig.args[1], "arg")))
    return call_python(context, builder, call, sig.args, args, 1)[0]


def native():
    """Words of native roots, and of them those that are kept."""
    me = view(p_dtype, layout.p_addr(0))[0]
    return int(me.xnative_n), int(me.xnative_kept)


@pytest.fixture(autouse=True)
def _clobber(request):
    """A freed object is filled with a pattern, and in the end the heap is as it should be."""
    for name in {"heap", "collected_heap"} & set(request.fixturenames):
        request.getfixturevalue(name)
        rt = view(runtime_dtype, RUNTIME)[0]
        rt.clobberfree = 1
        yield
        assert native() == (0, 0)
        assert verify(3).problems == ()
        return
    yield


# --- collections ------------------------------------------------------------------------------------------------------


def collect_and_reuse(node):
    """What was not found is freed, clobbered and given to others."""
    before = node.value if node is not None else 0
    for _ in range(2):
        collect_now()
        for i in range(2000):
            new(Node, None, -i)
    return before


@compiled
def held_by_frames(depth: int) -> int:
    """A chain of frames with an object each, the deepest of which has Python collect."""
    node = new(Node, new(Node, None, depth), depth)
    below = held_by_frames(depth - 1) if depth else have_python(collect_and_reuse, node)
    return below + (node.value == depth and node.next.value == depth)


def test_what_only_frames_hold_survives_collections_while_python_runs(heap):
    assert held_by_frames(20) == 21
    assert held_by_frames(0) == 1


def test_what_is_given_is_python_s_own(heap):
    kept = []

    def keep(node):
        kept.append(node)
        return len(kept)

    @compiled
    def give(node: Node) -> int:
        return have_python(keep, new(Node, node, 7)) + have_python(keep, None)

    assert give(new(Node, None, 3)) == 3
    collect_now()
    assert (kept[0].value, kept[0].next.value, kept[1]) == (7, 3, None)


def allocate(node):
    total = 0
    for i in range(50):
        total += new(Node, node, i).value
    return total


def test_while_another_process_collects(collected_heap):
    @compiled
    def work(rounds: int) -> int:
        first = new(Node, None, 1)
        wrong = 0
        for i in range(rounds):
            node = new(Node, first, i)
            have_python(allocate, node)
            for _ in range(1000):
                new(Node)
            wrong += node.value != i or node.next is not first or first.value != 1
        return wrong

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert work(300) == 0
    assert view(gcstats_dtype, GCSTATS)[0].num_gc > before


# --- other programs ---------------------------------------------------------------------------------------------------


def nest(node):
    if node.value == 0:
        return collect_and_reuse(node)
    return nested(node.value - 1)


@compiled
def nested(depth: int) -> int:
    node, other = new(Node, None, depth), new(Node, None, -depth)
    below = have_python(nest, node)
    new(Node)
    return below + (node.value == depth and other.value == -depth)


def test_programs_within_programs(heap):
    assert nested(12) == 13


def test_a_nested_program_may_be_deep_and_leaves_the_outer_one_its_stack(heap):
    @compiled
    def recurse(n: int, node: Node) -> int:
        return 0 if n == 0 else node.value + recurse(n - 1, node)

    def deep(node):
        return recurse(20_000, node)

    @compiled
    def outer(node: Node) -> int:
        mine = new(Node, node, 2)
        return have_python(deep, node) + recurse(20_000, mine)

    assert outer(new(Node, None, 1)) == 60_000


def test_threads_need_not_end_in_the_order_in_which_they_began(heap):
    """Each in the middle of a program; those that began first go on first, and have collections on the way."""
    n, began, may_end = 5, threading.Barrier(6), [threading.Event() for _ in range(5)]
    results = {}

    def wait(node):
        began.wait(10)
        may_end[node.value].wait(10)
        return 1

    @compiled
    def hold(i: int) -> int:
        node, other = new(Node, new(Node, None, i), i), new(Node, None, 100 + i)
        done = have_python(wait, node)
        done += have_python(collect_and_reuse, None)
        return done + 10 * (node.next.value == i and other.value == 100 + i)

    threads = [threading.Thread(target=lambda i=i: results.update({i: hold(i)})) for i in range(n)]
    for thread in threads:
        thread.start()
    began.wait(10)
    kept = native()[1]
    assert kept > 5
    for i in (1, 0, 3, 2, 4):
        collect_and_reuse(None)
        may_end[i].set()
        threads[i].join(10)
    assert results == dict.fromkeys(range(n), 11)


# --- errors -----------------------------------------------------------------------------------------------------------


def fail(value):
    raise LookupError(f"no {value}")


def test_what_python_raises_is_raised(heap):
    @compiled
    def ask(node: Node) -> int:
        return have_python(fail, node.value)

    with pytest.raises(LookupError, match="no 5") as raised:
        ask(new(Node, None, 5))
    assert raised.traceback[-1].name == "fail"
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_a_program_that_catches_it_goes_on(heap):
    @compiled
    def ask(node: Node) -> int:
        try:
            have_python(fail, node.value)
        except Exception:
            node.value = -1
        return have_python(collect_and_reuse, node)

    assert ask(new(Node, None, 5)) == -1


@pytest.fixture
def _no_cycles():
    """Python's own collector sees nothing: what is let go goes at once, or never."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refuse(node):
    raise LookupError


@compiled
def raises(node: Node) -> int:
    return have_python(refuse, node)


@compiled
def catches(node: Node) -> int:
    try:
        have_python(refuse, node)
    except Exception:
        node.value = 1
    return node.value


@compiled
def within(node: Node) -> int:
    """Python runs a program that catches something, and then raises itself."""
    return have_python(catch_and_refuse, node)


def catch_and_refuse(node):
    catches(node)
    refuse(node)


@pytest.mark.usefixtures("_no_cycles")
@pytest.mark.parametrize("body", [raises, catches, within])
def test_what_was_raised_keeps_nothing(heap, body):
    node = new(Node)
    alive = gomp.weak(node)
    with pytest.raises(LookupError) if body is not catches else contextlib.nullcontext():
        body(node)
    del node
    collect_now()
    assert alive.value() is None


def test_what_cannot_be_boxed_is_raised_and_nothing_is_called(heap, monkeypatch):
    def fail_to_box(context, builder, api, type_, value):
        api.err_set_string("PyExc_MemoryError", "no room for a number")
        return api.get_null_object()

    @compiled
    def ask(value: int) -> int:
        return have_python(fail, value)

    monkeypatch.setattr(pythoncalls, "_boxed", fail_to_box)
    with pytest.raises(MemoryError, match="no room for a number"):
        ask(5)


def test_an_error_within_programs_within_programs(heap):
    def inner(n):
        return ask(n - 1) if n else fail(n)

    @compiled
    def ask(n: int) -> int:
        node = new(Node, None, n)
        return have_python(inner, n) + node.value

    with pytest.raises(LookupError, match="no 0"):
        ask(6)


def interrupt(value):
    if value:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return 1
    signal.raise_signal(signal.SIGINT)
    return 0


@pytest.mark.parametrize("handled", [1, 0])
def test_ctrl_c_is_python_s_while_python_runs(heap, handled):
    from gomp.runtime.interrupt import handler

    @compiled
    def ask(handled: int) -> int:
        done = have_python(interrupt, handled)
        for _ in range(10_000):
            new(Node)
        return done

    handler.install()
    try:
        if handled:
            assert ask(handled) == 1
        else:
            with pytest.raises(KeyboardInterrupt):
                ask(handled)
        assert held_by_frames(0) == 1
    finally:
        handler.uninstall()


def test_without_memory_for_the_roots_the_program_ends(heap):
    @compiled
    def fill(n: int) -> int:
        return have_python(again, n + 1)

    def again(n):
        return fill(n)

    with pytest.raises((OutOfMemory, RecursionError)):
        fill(0)


# --- finalizers and cleanups ------------------------------------------------------------------------------------------

ran = []
done = threading.Semaphore(0)


def note(what):
    ran.append(what.value if isinstance(what, Node) else what)
    done.release()


@compiled
def note_compiled(node: Node) -> int:
    return have_python(note, node)


@pytest.fixture
def _quiet():
    ran.clear()
    yield
    assert not done.acquire(blocking=False)


def await_calls(n):
    for _ in range(n):
        assert done.acquire(timeout=10)
    return sorted(ran, key=repr)


@compiled
def register(n: int, other: Node) -> None:
    for i in range(n):
        node = new(Node, None, i)
        gomp.set_finalizer(node, note)
        if i % 2:
            gomp.set_finalizer(node, None)
        gomp.add_cleanup(node, note, i + 0.5)
        gomp.add_cleanup(node, note, other)
        gomp.add_cleanup(node, note, "text")
        gomp.add_cleanup(ptr=node, function=note, arg=None).stop()


@pytest.mark.usefixtures("_quiet")
def test_finalizers_and_cleanups_are_registered_as_from_python(heap):
    register(4, new(Node, None, 70))
    collect_now()
    assert await_calls(2 + 2 * 3) == sorted([0, 2, 1.5, 3.5, 70, 70, "text", "text"], key=repr)
    collect_now()
    assert await_calls(2 * 3)[:2] == ["text", "text"][:0] or len(ran) == 14


@pytest.mark.usefixtures("_quiet")
def test_a_compiled_function_may_be_registered_and_a_cleanup_returned(heap):
    @compiled
    def make(value: int) -> Node:
        node = new(Node, None, value)
        gomp.set_finalizer(node, note_compiled)
        return node

    @compiled
    def arrange(node: Node):
        return gomp.add_cleanup(node, note, 1)

    node = make(8)
    cleanup = arrange(node)
    assert type(cleanup) is gomp.Cleanup
    cleanup.stop()
    del node
    collect_now()
    assert await_calls(1) == [8]


def test_what_go_refuses_is_refused_with_its_message(heap):
    @compiled
    def twice(node: Node) -> None:
        gomp.set_finalizer(node, note)
        gomp.set_finalizer(node, note)

    @compiled
    def itself(node: Node) -> None:
        gomp.add_cleanup(node, note, node)

    with pytest.raises(gomp.FinalizerError, match=r"runtime.SetFinalizer: finalizer already set"):
        twice(new(Node))
    with pytest.raises(gomp.FinalizerError, match=r"runtime.SetFinalizer: first argument is nil"):
        twice(None)
    with pytest.raises(gomp.CleanupError, match="ptr is equal to arg, cleanup will never run"):
        itself(new(Node))


def plain(x): ...


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda node: plain(node), "plain is a function of Python.*: decorate it with @gomp.compiled"),
        (
            lambda node: gomp.go(node),
            r"gomp.go\(F, slot=value, ...\) starts a goroutine with a frame F, and",
        ),
        (lambda node: gomp.set_finalizer(node), r"write gomp.set_finalizer\(obj, function\)"),
        (lambda node: gomp.set_finalizer(node, lambda x: None), "is one that has a name in its module"),
        (lambda node: gomp.add_cleanup(node, plain, (1, 2)), r"arg of gomp.add_cleanup cannot be UniTuple"),
    ],
)
def test_what_does_not_compile(heap, body, message):
    with pytest.raises(CompileError, match=message):
        compiled(body)(new(Node))


def test_an_argument_is_a_value_or_a_name():
    assert not Argument("given").has_word
    assert Argument("value").has_word
