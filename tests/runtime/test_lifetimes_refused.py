"""What Go refuses of finalizers and cleanups is refused with its message; and what else cannot be."""

from __future__ import annotations

import functools

import pytest
from lifetime_probes import PROBES, Obj, Small

import gomp
from gomp.core.mutator import lifetimes as kernels
from gomp.core.mutator import weak
from gomp.core.mutator.boundary import OUT_OF_MEMORY
from gomp.errors import CleanupError, FinalizerError, OutOfMemory, RuntimeLost
from gomp.runtime.callbacks import callbacks
from gomp.runtime.handles import HandleTable


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


@gomp.struct
class Half:
    n: int


@gomp.struct
class Pair:
    """16 bytes without references: its size class is also that of the blocks of tiny objects."""

    halves: gomp.Array[gomp.Inline[Half], 2]


def round_itself(obj):
    """Containers in each other, one of them in itself."""
    outer = [[]]
    outer[0] += [outer, {"deep": (obj,)}]
    return outer


def test_a_cleanup_whose_argument_holds_its_object_is_refused(heap):
    obj, pair, other = gomp.new(Small), gomp.new(Pair), gomp.new(Pair)
    cases = [
        (obj, held) for held in ([obj], (1, obj), {obj}, {"of": obj}, {obj: 1}, frozenset([obj]), round_itself(obj))
    ]
    for ptr, arg in [*cases, (pair, pair.halves[1]), (pair.halves[1], pair), (pair, [pair.halves[1]])]:
        with pytest.raises(CleanupError, match="ptr is within arg, cleanup will never run"):
            gomp.add_cleanup(ptr, print, arg)
    with pytest.raises(CleanupError, match="closes over ptr, cleanup will never run"):
        gomp.add_cleanup(obj, lambda _, kept=[obj]: kept, None)
    gomp.add_cleanup(pair, print, [other, other.halves[1], obj]).stop()
    tiny, neighbour = gomp.new(Half), gomp.new(Half)
    gomp.add_cleanup(tiny, print, neighbour).stop()


@pytest.mark.parametrize(
    "register",
    [lambda: gomp.set_finalizer(gomp.new(Small), print), lambda: gomp.add_cleanup(gomp.new(Small), print, 1)],
)
def test_what_could_not_be_registered_is_forgotten(heap, monkeypatch, register):
    def end(kernel, *args):
        raise RuntimeLost("the runtime has ended")

    monkeypatch.setattr(HandleTable, "call", staticmethod(end))
    with pytest.raises(RuntimeLost):
        register()
    assert callbacks._functions == {}


def test_a_status_has_its_own_error(heap, monkeypatch):
    for status, error, message in [
        (kernels.NOT_IN_BLOCK, ValueError, "gomp.weak: pointer not in allocated block"),
        (OUT_OF_MEMORY, OutOfMemory, "no memory for another finalizer, cleanup or weak pointer"),
    ]:
        monkeypatch.setattr(weak, "add_weak", lambda *args, status=status: status)
        with pytest.raises(error, match=message):
            gomp.weak(gomp.new(Small))


def test_what_cannot_die_is_a_type_error(heap):
    with pytest.raises(TypeError, match="int is no pointer"):
        gomp.weak(3)
    with pytest.raises(TypeError, match="int is no pointer"):
        gomp.add_cleanup(3, print, 1)
    with pytest.raises(TypeError, match="give an object and the name of one of its fields"):
        gomp.pointer(gomp.new(Small), "nothing")
