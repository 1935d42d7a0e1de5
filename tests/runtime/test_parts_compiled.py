"""Numbers of every width, parts by value, fixed arrays and texts in compiled code: the same operations on the same declarations."""

from __future__ import annotations

import random
import struct as packing

import numpy as np
import pytest
from kernel_heap import collect_now

from gomp.errors import CompileError, NilDereference
from gomp.runtime.arrays import Array, array
from gomp.runtime.compiled import compiled
from gomp.runtime.kinds import SCALARS, float32, int8, int16, uint8, uint16, uint32, uint64
from gomp.runtime.parts import Inline
from gomp.runtime.root_table import Global
from gomp.runtime.structs import info, new, struct
from gomp.runtime.texts import Bytes, Str, bytes_, str_
from gomp.runtime.verify import verify


@struct
class Leaf:
    n: int


@struct
class Point:
    x: int16
    y: float32
    leaf: Leaf


@struct
class Shape:
    kind: int8
    size: uint16
    big: uint64
    flag: bool
    middle: Inline[Point]
    corners: Array[Inline[Point], 3]
    weights: Array[uint8, 5]
    leaves: Array[Leaf, 4]
    name: Str
    raw: Bytes


PLACE = Global("parts_point", Point)
TEXT = Global("parts_text", Str)


def proven():
    assert verify(3).problems == ()


# --- numbers


@pytest.mark.parametrize("kind", [k for k in SCALARS.values() if k.is_integer], ids=lambda k: k.name)
def test_an_integer_is_checked_when_it_is_stored(heap, kind):
    one = struct(type("One", (), {"__annotations__": {"pad": bool, "value": kind}, "__module__": __name__}))
    many_class = Array[kind]

    @compiled
    def store(x, value: int) -> int:
        x.value = value
        return x.value

    @compiled
    def store_element(a: many_class, i: int, value: int) -> int:
        a[i] = value
        return a[i]

    @compiled
    def make(value: int):
        return new(one, value=value)

    x, many = new(one), array(kind, 3)
    fits = [v for v in (kind.low, kind.high, 0, 1, 100) if v < 1 << 63]
    for value in fits:
        assert store(x, value) == x.value == store_element(many, 1, value) == make(value).value == value
    before = x.value
    for value in {kind.low - 1, kind.high + 1, -(1 << 63), (1 << 63) - 1}:
        if kind.low <= value <= kind.high or not -(1 << 63) <= value < 1 << 63:
            continue
        with pytest.raises(OverflowError, match=f"field value of One is {kind.wants}, {kind.low} to {kind.high}; "):
            store(x, value)
        with pytest.raises(OverflowError, match=r"an element of Array\[.*\] is an? u?int"):
            store_element(many, 1, value)
        with pytest.raises(OverflowError, match="field value of One is"):
            make(value)
    assert (x.value, x.pad, many[:]) == (before, False, [0, before, 0])
    proven()


def test_float32_is_rounded_and_checked(heap):
    @compiled
    def store(p: Point, value: float) -> float:
        p.y = value
        return p.y

    p = new(Point)
    for value in (0.1, -2.5, 3.4e38, float("inf"), float("-inf"), 1e-50):
        assert store(p, value) == p.y == float(np.float32(value))
    assert str(store(p, float("nan"))) == "nan"
    with pytest.raises(
        OverflowError, match=r"field y of Point is a float32, up to 3.40282e\+38; the value does not fit"
    ):
        store(p, -1e39)


def test_uint64_is_numbas(heap):
    @compiled
    def above(s: Shape) -> int:
        s.big = np.uint64(1) << np.uint64(63)
        s.size = s.big >> np.uint64(50)
        return s.size

    s = new(Shape)
    assert above(s) == 1 << 13
    assert s.big == 1 << 63


# --- parts


@compiled
def draw(s: Shape, leaf: Leaf) -> int:
    s.kind = -3
    s.kind -= 1
    s.flag = s.kind < 0
    s.middle.x = 300
    s.middle.leaf = leaf
    middle = s.middle
    middle.y = 0.5
    for i in range(len(s.corners)):
        s.corners[i].x = i * 10
        s.corners[i].leaf = new(Leaf, n=i)
    for i in range(len(s.weights)):
        s.weights[i] = 50 * i
    s.leaves[3] = s.corners[2].leaf
    total = 0
    for i in range(3):
        total += s.corners[i].x + s.corners[i].leaf.n
    for i in range(4):
        if s.leaves[i] is not None:
            total += 1000
    return total + s.weights[4]


def test_compiled_code_writes_what_python_reads(heap):
    s, leaf = new(Shape), new(Leaf, n=9)
    assert draw(s, leaf) == 33 + 1000 + 200
    assert (s.kind, s.flag, s.middle.x, s.middle.y, s.middle.leaf) == (-4, True, 300, 0.5, leaf)
    assert [(p.x, p.leaf.n) for p in s.corners] == [(0, 0), (10, 1), (20, 2)]
    assert s.weights[:] == [0, 50, 100, 150, 200]
    assert [leaf and leaf.n for leaf in s.leaves] == [None, None, None, 2]
    proven()


def test_a_part_leaves_compiled_code_and_keeps_the_object(heap):
    @compiled
    def corner(i: int) -> Point:
        s = new(Shape)
        s.corners[i].leaf = new(Leaf, n=i)
        s.leaves[0] = s.corners[i].leaf
        return s.corners[i]

    @compiled
    def weights() -> Array[uint8, 5]:
        s = new(Shape)
        s.weights[2] = 7
        return s.weights

    @compiled
    def read(p: Point, w: Array[uint8, 5]) -> int:
        return p.leaf.n + w[2] + len(w)

    kept = [(corner(i % 3), weights()) for i in range(20)]
    for _ in range(3):
        collect_now()
        for _ in range(200):
            new(Shape)
    assert [read(p, w) for p, w in kept] == [i % 3 + 12 for i in range(20)]
    PLACE.set(kept[1][0])
    del kept
    collect_now()
    assert PLACE.get().leaf.n == 1
    proven()


def test_what_is_refused_when_it_is_compiled(heap):
    @compiled
    def middle(s: Shape) -> None:
        s.middle = s.corners[0]

    @compiled
    def kind(s: Shape) -> None:
        s.kind = 1.5

    @compiled
    def flag(s: Shape) -> None:
        s.flag = 1

    @compiled
    def name(s: Shape) -> None:
        s.name = s.raw

    @compiled
    def corner(s: Shape) -> None:
        s.corners[0] = s.middle

    @compiled
    def make(s: Shape) -> Shape:
        return new(Shape, middle=s.middle)

    for function, message in (
        (middle, "field middle of Shape is a Point by value: it cannot be replaced"),
        (kind, "field kind of Shape holds an int8, not float64"),
        (flag, "field flag of Shape holds a bool, not int64"),
        (name, "field name of Shape holds Str, not Bytes"),
        (corner, r"an element of Array\[Inline\[Point\], 3\] is a Point by value"),
        (make, "field middle of Shape is a Point by value"),
    ):
        with pytest.raises(CompileError, match=message):
            function(new(Shape))


def test_none_and_indices_are_checked(heap):
    @compiled
    def corner(s: Shape, i: int) -> int:
        return s.corners[i].x

    @compiled
    def size(s: Shape) -> int:
        return len(s.name) + len(s.raw)

    with pytest.raises(NilDereference):
        corner(None, 0)
    for i in (-1, 3, 1 << 60):
        with pytest.raises(IndexError):
            corner(new(Shape), i)
    with pytest.raises(NilDereference, match="a text that is None"):
        size(new(Shape))


# --- texts


@compiled
def same(a: Str, b: Str) -> bool:
    return a == b


@compiled
def same_bytes(a: Bytes, b: Bytes) -> bool:
    return not (a != b)  # noqa: SIM202 (the other operation)


@compiled
def code_at(text: Str, i: int) -> int:
    return ord(text[i])


@compiled
def byte_at(data: Bytes, i: int) -> int:
    return data[i]


@pytest.mark.parametrize("text", ["", "a", "hello", "hé", "日本語テキスト", "🙂 mixed é text" * 50, "a" * 10_000])
def test_texts_are_the_same_in_compiled_code(heap, text):
    made, data = str_(text), bytes_(text.encode())
    assert same(made, str_(text))
    assert same_bytes(data, bytes_(text.encode()))
    assert not same(made, str_(text + "x"))
    assert not same_bytes(data, bytes_(text.encode() + b"\0"))
    if text:
        assert not same(made, str_(text[:-1] + chr(ord(text[-1]) ^ 1)))
        assert not same_bytes(data, bytes_(text.encode()[:-1] + b"\1"))
    places = {0, len(text) // 2, len(text) - 1} & set(range(len(text)))
    assert [code_at(made, i) for i in places] == [ord(text[i]) for i in places]
    assert [byte_at(data, i) for i in places] == [text.encode()[i] for i in places]
    for i in (-1, len(text)):
        with pytest.raises(IndexError):
            code_at(made, i)
    proven()


def test_texts_compare_with_strings_and_none(heap):
    @compiled
    def what(text: Str) -> int:
        if text is None:
            return 0
        if text == "quit":
            return 1
        if text != "héllo":
            return 2
        return 3 if text[1] == "é" and len(text) == 5 and text else 4

    @compiled
    def identity(a: Str, b: Str) -> int:
        return (1 if a is b else 0) + (2 if a == b else 0)

    assert [what(x) for x in (None, str_("quit"), str_("quip"), str_("qui"), str_("héllo"))] == [0, 1, 2, 2, 3]
    a = str_("x")
    assert (identity(a, a), identity(a, str_("x")), identity(a, str_("y"))) == (3, 2, 0)
    TEXT.set(a)

    @compiled
    def through_global() -> int:
        return len(TEXT.get())

    assert through_global() == 1


# --- both ways


def random_struct(rng, depth=0):
    fields = {}
    for i in range(rng.randint(1, 5)):
        choice = rng.random()
        kind = rng.choice(list(SCALARS.values()))
        if choice < 0.5 or depth > 1:
            fields[f"f{i}"] = kind
        elif choice < 0.65:
            fields[f"f{i}"] = Array[kind, rng.randint(1, 4)]
        elif choice < 0.8:
            fields[f"f{i}"] = Inline[random_struct(rng, depth + 1)]
        elif choice < 0.9:
            fields[f"f{i}"] = Array[Inline[random_struct(rng, depth + 1)], rng.randint(1, 3)]
        else:
            fields[f"f{i}"] = Leaf
    name = f"Random{rng.randrange(1 << 60)}"
    return struct(type(name, (), {"__annotations__": fields, "__module__": __name__}))


def leaves_of(cls, path="x"):
    """(expression, kind) of every number and reference in a struct."""
    for field in info(cls).fields.values():
        yield from _leaves(field.part, f"{path}.{field.name}")


def _leaves(part, path):
    if hasattr(part, "code"):
        yield path, part
    elif hasattr(part, "target"):
        yield path, None
    elif issubclass(part.cls, Array):
        for i in range(part.cls.length):
            yield from _leaves(part.cls.layout.part, f"{path}[{i}]")
    else:
        yield from leaves_of(part.cls, path)


def some_value(kind, rng):
    if kind is None:
        return new(Leaf, n=rng.randrange(1000))
    if kind.is_integer:
        return rng.choice([kind.low, min(kind.high, (1 << 63) - 1), rng.randint(max(kind.low, -100), 100)])
    if kind.code == "?":
        return rng.random() < 0.5
    value = rng.uniform(-1e6, 1e6)
    return packing.unpack("f", packing.pack("f", value))[0] if kind.code == "f" else value


@pytest.mark.parametrize("seed", range(6))
def test_random_structs_are_the_same_from_python_and_compiled(heap, seed):
    rng = random.Random(seed)
    cls = random_struct(rng)
    paths = list(leaves_of(cls))[:12]
    names = {"cls": cls, "Leaf": Leaf, "compiled": compiled}
    arguments = ", ".join(f"v{i}" for i in range(len(paths)))
    code = [f"def write(x, {arguments}):", *(f"    {path} = v{i}" for i, (path, _) in enumerate(paths))]
    for i, (path, _) in enumerate(paths):
        code += [f"def read{i}(x):", f"    return {path}"]
    exec("\n".join(code), names)
    write = compiled(names["write"])
    values = [some_value(kind, rng) for _, kind in paths]
    by_compiled, by_python = new(cls), new(cls)
    write(by_compiled, *values)
    names["write"](by_python, *values)
    collect_now()
    for x in (by_compiled, by_python):
        assert [eval(path, {"x": x}) for path, _ in paths] == values
    for i in rng.sample(range(len(paths)), min(3, len(paths))):
        assert compiled(names[f"read{i}"])(by_python) == values[i]
    proven()


def test_arrays_of_every_kind_are_made_in_compiled_code(heap):
    @compiled
    def narrow(n: int) -> Array[int8]:
        a = array(int8, n)
        for i in range(n):
            a[i] = i - 64
        return a

    @compiled
    def wide(n: int) -> Array[uint32]:
        a = array(uint32, n)
        a[n - 1] = 4294967295
        return a

    @compiled
    def halves(n: int) -> Array[float32]:
        a = array(float32, n)
        a[0] = 0.25
        return a

    @compiled
    def flags(n: int) -> Array[bool]:
        a = array(bool, n)
        a[n - 1] = True
        return a

    assert narrow(128)[:] == list(range(-64, 64))
    assert wide(3)[:] == [0, 0, (1 << 32) - 1]
    assert halves(2)[:] == [0.25, 0.0]
    assert flags(3)[:] == [False, False, True]
    with pytest.raises(OverflowError, match=r"an element of Array\[int8\] is an int8, -128 to 127"):
        narrow(200)
    proven()
