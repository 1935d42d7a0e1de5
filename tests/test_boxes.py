"""gomp.box: numbers on the heap, and channels, locks and groups that compiled code makes."""

from __future__ import annotations

import pickle

import pytest

import gomp
from gomp.errors import CompileError, StackEscapeError
from tests.chan_load import wait_until_none


@gomp.struct
class Holds:
    count: gomp.Box[int]
    ratio: gomp.Box[gomp.float32]


@gomp.frame
class Counts(gomp.Frame[int]):
    """What it shares of its slots is in boxes."""

    n: int
    narrow: gomp.int8
    has_begun: bool
    total: gomp.Box[int]
    group: gomp.WaitGroup

    def step(f) -> gomp.Action:
        if not f.has_begun:
            f.has_begun = True
            f.total = gomp.box(f.n)
            f.group = gomp.WaitGroup()
            f.group.add(2)
            f.total.value += gomp.box(f.narrow).value
            gomp.go(Adds, total=f.total, group=f.group, n=10)
            gomp.go(Adds, total=f.total, group=f.group, n=20)
            return f.wait(f.group)
        return f.ret(f.total.value)


@gomp.frame
class Adds:
    total: gomp.Box[int]
    group: gomp.WaitGroup
    n: int
    m: gomp.Mutex
    holds: bool

    def step(f) -> gomp.Action:
        if not f.holds:
            f.holds = True
            f.m = gomp.Mutex()
            return f.lock(f.m)
        f.total.value += f.n
        f.m.unlock()
        f.group.done()
        return f.ret()


@gomp.compiled
def boxes(x: float, flag: bool) -> float:
    held = gomp.new(Holds, count=gomp.box(3), ratio=gomp.new(gomp.Box[gomp.float32], value=0.5))
    is_set = gomp.box(flag)
    is_set.value = not is_set.value
    return gomp.box(x).value + held.count.value + held.ratio.value if is_set.value else 0.0


@gomp.compiled
def through_channels(n: int) -> int:
    numbers, links, none = gomp.Chan[float](n), gomp.Chan[gomp.Box[int]](n), gomp.Chan[bool]()
    for i in range(n):
        numbers.send(i + 0.5)
        links.send(gomp.box(i))
    total = 0
    for _ in range(n):
        total += int(2 * numbers.recv()) + links.recv().value
    return total + numbers.capacity + len(links) + none.capacity


def twice(box: gomp.Box[int]) -> gomp.Box[int]:
    box.value += 1
    return gomp.box(2 * box.value)


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=1, gogc=50) as runtime:
        yield runtime
        wait_until_none()
        assert "verified" in runtime.verify()


def test_a_box_is_a_struct_of_one_number(rt):
    assert [type(gomp.box(x)).__name__ for x in (1, 1.5, True)] == ["Box[int]", "Box[float]", "Box[bool]"]
    box = gomp.box(3)
    assert isinstance(box, gomp.Box[int])
    held = gomp.new(Holds, count=box)
    held.count.value += 1
    assert box.value == 4
    assert held.count == box
    with pytest.raises(OverflowError, match=r"value of Box\[int8\]"):
        gomp.new(gomp.Box[gomp.int8], value=128)


def test_it_goes_to_other_processes_and_back(rt):
    box = gomp.box(3)
    assert rt.run(twice, box).value == 8
    assert box.value == 4


def test_steps_and_compiled_code_make_them(rt):
    assert Counts.run(n=5, narrow=-2) == 33
    assert rt.run(Counts.run, n=5, narrow=-2) == 33
    assert boxes(2.0, False) == 5.5
    assert boxes(2.0, True) == 0.0


def test_channels_that_compiled_code_makes(rt):
    expected = sum(2 * i + 1 + i for i in range(100)) + 100
    assert through_channels(100) == rt.run(through_channels, 100) == expected
    with pytest.raises(ValueError, match=r"Chan\[float\]\(n\): n is how many values it holds"):
        through_channels(-1)


def test_what_is_no_number_is_refused_with_what_to_do():
    with pytest.raises(
        TypeError, match=r"an int, a float or a bool on the heap, not a str; of another kind of number, write gomp.new"
    ):
        gomp.box("text")
    with pytest.raises(TypeError, match=r"a box is of a number, .* not Holds: an object is on the heap already"):
        gomp.Box[Holds]
    with pytest.raises(TypeError, match=r"write gomp\.box\(value\)"):
        gomp.Box(3)


@gomp.frame
class BoxesItself:
    kept: Holds

    def step(f) -> gomp.Action:
        gomp.box(f)
        return f.ret()


def bad_box(held: Holds) -> int:
    return gomp.box(held).value


def bad_channel(held: Holds) -> int:
    return gomp.Chan[int](1.5).capacity


def bad_mutex(held: Holds) -> None:
    gomp.Mutex(1)


def bad_group(held: Holds) -> None:
    gomp.WaitGroup().go(Adds, n=1)


def no_element(held: Holds) -> None:
    gomp.Chan(1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (bad_box, "not a Holds: an object is there already, and a reference leads to it"),
        (bad_channel, r"write gomp\.Chan\[int\]\(n\), with n .* an int, not float64"),
        (bad_mutex, r"write gomp\.Mutex\(\), with nothing between"),
        (bad_group, r"write group\.add\(1\) and gomp\.go\(F, \.\.\.\) here, and group\.done\(\)"),
        (no_element, r"write gomp\.Chan\[T\]\(n\)"),
    ],
)
def test_compile_errors_name_the_fix(rt, function, message):
    with pytest.raises(CompileError, match=message):
        gomp.compiled(function)(gomp.new(Holds))


def test_a_frame_is_not_boxed(rt):
    with pytest.raises(
        StackEscapeError, match=r"gomp\.box cannot take a frame .* and a number put on the heap with gomp\.box"
    ):
        BoxesItself.run(kept=None)


def test_classes_of_boxes_are_the_same_after_a_journey():
    from gomp.runtime.pickling import dumps

    assert pickle.loads(dumps(gomp.Box[gomp.int16])) is gomp.Box[gomp.int16]
