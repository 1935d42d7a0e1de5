"""Random programs of objects, references, finalizers, cleanups and weak pointers against a naive model: what runs, what is nil, what is left."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from special_world import lifetimes

from gomp.core import COMPILED, load_kernels
from gomp.core.gc import sweep
from gomp.core.gc.rebuild import rebuild_derived_stw
from gomp.core.mutator import boundary
from gomp.core.mutator import lifetimes as kernels
from gomp.core.sched.status import OK
from gomp.core.shm.records import GC_TRIGGER_HEAP

EXAMPLES, STEPS = (60, 50) if COMPILED else (6, 20)
SIZES = (16, 64, 600, 40_000)
_N = st.integers(0, 30)
ACTIONS = st.one_of(
    st.tuples(st.just("new"), _N),
    st.tuples(st.just("new"), _N),
    st.tuples(st.just("link"), _N, st.integers(0, 1), _N),
    st.tuples(st.just("cut"), _N, st.integers(0, 1)),
    st.tuples(st.just("drop"), _N),
    st.tuples(st.just("finalizer"), _N),
    st.tuples(st.just("clear"), _N),
    st.tuples(st.just("cleanup"), _N),
    st.tuples(st.just("stop"), _N),
    st.tuples(st.just("weak"), _N),
    st.tuples(st.just("rebuild")),
    st.tuples(st.just("collect")),
)


@dataclass(eq=False)
class Obj:
    addr: int
    refs: list = field(default_factory=lambda: [None, None])
    finalizer: int = 0
    cleanups: dict = field(default_factory=dict)  # number to record


class Model:
    def __init__(self, x):
        self.x = x
        self.held = []  # (root, object)
        self.objects = []
        self.weak = []  # (root of the handle, object or None once it is dead)
        self.numbers = 0

    def pick(self, i):
        return self.held[i % len(self.held)] if self.held else (None, None)

    def number(self):
        self.numbers += 1
        return self.numbers

    # --- actions ------------------------------------------------------------------------------------------------------

    def new(self, i):
        size = SIZES[i % len(SIZES)]
        root = self.x.world.new(0, size, self.x.world.struct_type(size, (0, 1)))
        obj = Obj(self.x.world.address(root))
        self.held.append((root, obj))
        self.objects.append(obj)

    def link(self, i, word, j):
        (a, first), (b, second) = self.pick(i), self.pick(j)
        if first:
            assert boundary.write_reference(a[1], 8 * word, b[1]) == OK
            first.refs[word] = second

    def cut(self, i, word):
        a, obj = self.pick(i)
        if obj:
            assert boundary.write_reference(a[1], 8 * word, boundary.NO_SLOT) == OK
            obj.refs[word] = None

    def drop(self, i):
        if self.held:
            self.x.world.drop(self.held.pop(i % len(self.held))[0])

    def finalizer(self, i):
        root, obj = self.pick(i)
        if obj:
            number = self.number()
            status = self.x.finalizer(root, number)
            assert (status == kernels.ALREADY_SET) == bool(obj.finalizer)
            obj.finalizer = obj.finalizer or number

    def clear(self, i):
        root, obj = self.pick(i)
        if obj:
            assert kernels.clear_finalizer(root[1], 0) == (obj.finalizer or kernels.NOT_SET)
            obj.finalizer = 0

    def cleanup(self, i):
        root, obj = self.pick(i)
        if obj:
            number = self.number()
            obj.cleanups[number] = self.x.cleanup(root, number, 8 * (i % 2))

    def stop(self, i):
        _, obj = self.pick(i)
        if obj and obj.cleanups:
            number, record = obj.cleanups.popitem()
            assert kernels.stop_cleanup(record, number) == 1

    def weak_pointer(self, i):
        root, obj = self.pick(i)
        if obj:
            self.weak.append((self.x.weak(root), obj))

    def rebuild(self):
        rebuild_derived_stw()

    # --- a collection -------------------------------------------------------------------------------------------------

    def live(self):
        todo = [obj for _, obj in self.held]
        todo += [ref for obj in self.objects if obj.finalizer for ref in obj.refs if ref is not obj]
        live = set()
        while todo:
            obj = todo.pop()
            if obj and obj not in live:
                live.add(obj)
                todo += obj.refs
        return live

    def collect(self):
        world = self.x.world
        live = self.live()
        dead = [obj for obj in self.objects if obj not in live]
        expected = [("finalizer", obj.finalizer) for obj in dead if obj.finalizer]
        expected += [("cleanup", number) for obj in dead if not obj.finalizer for number in obj.cleanups]
        self.weak = [(box, None if obj in dead else obj) for box, obj in self.weak]
        world.collect(GC_TRIGGER_HEAP)
        self.check_weak()  # nothing has been swept
        with world.as_coordinator():
            while sweep.sweep_step(3):
                pass
        world.verify()
        self.check_weak()
        self.objects = [obj for obj in self.objects if obj in live or obj.finalizer]
        resurrected = {obj.finalizer: obj for obj in dead if obj.finalizer}
        for obj in resurrected.values():
            obj.finalizer = 0
        assert sorted(self.run(resurrected)) == sorted(expected)
        report = world.verify()
        boxes = {world.address(box) for box, _ in self.weak}
        assert report.objects == len(self.objects) + len(boxes)

    def run(self, objects):
        """What is due. Every third finalizer keeps its object."""
        world, ran = self.x.world, []
        world.be(0)
        while True:
            slot = world._free_slot(0)
            n = kernels.take_finalizer(slot)
            if n == 0:
                world._free[0].append(slot)
                break
            number = int(kernels.function_of(n))
            ran.append(("finalizer", number))
            assert world.address((0, slot)) == objects[number].addr
            if number % 3 == 0:
                self.held.append(((0, slot), objects[number]))
            else:
                world.drop((0, slot))
            assert kernels.finish_special(n, 0) == OK
        return ran + self.x.run()

    def check_weak(self):
        for box, obj in self.weak:
            root = self.x.value(box)
            assert (root is None) == (obj is None)
            if root:
                assert self.x.world.address(root) == obj.addr
                self.x.world.drop(root)


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    load_kernels()


def run(actions):
    with lifetimes() as x:
        x.world.runtime.clobberfree = 1
        model = Model(x)
        for name, *arguments in (*actions, ("collect",), ("collect",)):
            getattr(model, "weak_pointer" if name == "weak" else name)(*arguments)
            x.world.verify()


@given(st.lists(ACTIONS, min_size=1, max_size=STEPS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_runs_and_what_is_nil_is_what_the_model_says(actions):
    run(actions)


@pytest.mark.slow
@given(st.lists(ACTIONS, min_size=1, max_size=3 * STEPS))
@settings(max_examples=40 * EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
def test_the_same_for_many_longer_programs(actions):
    run(actions)
