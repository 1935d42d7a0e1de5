"""References on their way, for the harness of kills: as arguments and results of goroutines and of an executor, and as pickles that lie about.

What is sent says by a number what is in it: structs, an array, a text, bytes, a map, a slice of an ndarray and a weak pointer. Whoever gets it looks
at all of it, so what was freed on its way is noticed.

A *letter* is a pickle of one reference, kept as bytes in a map that all see. Anybody opens it: the first gets what is in it; later ones, and those
who come after the death of its sender, are told so. It is taken out of the map after that, so that no letter is lost unopened.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
from typing import Any

import numpy as np

import gomp

LETTERS_EACH = 6
ROWS = 24


@gomp.struct
class Slip:
    next: Slip
    number: int
    text: gomp.Str


@gomp.struct
class Line:
    number: int


LETTERS = gomp.Global("faults.letters", gomp.Map[gomp.Bytes])
Parcel = tuple[int, Slip, gomp.Array[int], gomp.Str, gomp.Bytes, gomp.Map[Line], gomp.NDArray, gomp.Weak[Slip]]


def make_slip(number: int) -> Slip:
    return gomp.new(Slip, gomp.new(Slip, None, number + 1, None), number, gomp.str(f"slip {number}"))


def make_array(number: int) -> gomp.Array[int]:
    return gomp.array(int, [number + i for i in range(1 + number % 50)])


def make_map(number: int) -> gomp.Map[Line]:
    lines = gomp.map(Line)
    for i in range(number % 20):
        lines[f"{number}/{i}"] = gomp.new(Line, number + i)
    return lines


def make_rows(number: int) -> gomp.NDArray:
    """A slice: nothing else holds the array."""
    rows = gomp.ndarray((ROWS, 1 + number % 300), np.int64)
    rows[...] = number
    return rows[number % 5 :: 2]


def make_pointer(number: int) -> gomp.Weak[Slip]:
    """To what nobody holds."""
    return gomp.weak(make_slip(number))


def make_parcel(number: int) -> Parcel:
    slip = make_slip(number)
    text = gomp.str(f"ünïcode {number}" * (1 + number % 40))
    return (
        number, slip, make_array(number), text, gomp.bytes(bytes([number % 256]) * (number % 3000)), make_map(number),
        make_rows(number), gomp.weak(slip),
    )  # fmt: skip


def is_as_made(thing: Any, number: int) -> bool:
    """Whether one of the things of a parcel is what it was when it was made."""
    if isinstance(thing, Slip):
        return (thing.number, thing.next.number, thing.text) == (number, number + 1, f"slip {number}")
    if isinstance(thing, gomp.Weak):
        found = thing.value()
        return found is None or is_as_made(found, number)
    if isinstance(thing, gomp.NDArray):
        return thing.shape == (len(range(number % 5, ROWS, 2)), 1 + number % 300) and bool((thing == number).all())
    if isinstance(thing, gomp.Map):
        return {key: line.number for key, line in thing.items()} == {
            f"{number}/{i}": number + i for i in range(number % 20)
        }
    if isinstance(thing, gomp.Str):
        return thing == f"ünïcode {number}" * (1 + number % 40)
    if isinstance(thing, gomp.Bytes):
        return thing == bytes([number % 256]) * (number % 3000)
    return list(thing) == [number + i for i in range(1 + number % 50)]


def check(number: int, *things: Any) -> None:
    for thing in things:
        if not is_as_made(thing, number):
            raise AssertionError(f"{type(thing).__name__} number {number} arrived as {thing!r}")


def check_all(number: int, *things: Any) -> None:
    """The things of a parcel: among them the weak pointer to one, which is held."""
    check(number, *things)
    slip, pointer = things[0], things[-1]
    if pointer.value() != slip or pointer != gomp.weak(slip):
        raise AssertionError(f"a weak pointer to slip {number} arrived as {pointer!r}")


def answer(parcel: Parcel) -> tuple[Parcel, list[Any]]:
    """Look at a parcel; another, and the things of the first back."""
    number, *things = parcel
    check_all(number, *things)
    return make_parcel(number + 7), things


def accept(number: int, answered: tuple[Parcel, list[Any]]) -> None:
    """What :func:`answer` has made of the parcel with that number."""
    parcel, things = answered
    check_all(*parcel)
    check_all(number, *things)
    if parcel[0] != number + 7:
        raise AssertionError(f"the answer to {number} is number {parcel[0]}")


GONE = (
    gomp.WorkerDied,
    gomp.StaleReference,
)  # whoever had it died: before its end, or after it with what it was about to give away
MAKERS = (make_slip, make_array, make_map, make_rows, make_pointer)


class Courier:
    """Writes letters and opens those of others; holds what it found for a while, an array by its slice alone."""

    def __init__(self, owner: int, rng: random.Random) -> None:
        self.owner, self.rng = owner, rng
        self.numbers = itertools.count(1)
        self.mine: list[str] = []
        self.shelf: list[tuple[int, Any]] = []

    def step(self) -> None:
        letters = LETTERS.get()
        self.mine = [key for key in self.mine if key in letters]
        while len(self.mine) < LETTERS_EACH:
            number = self.rng.randrange(10_000)
            key = f"{self.owner}/{next(self.numbers)}/{number}"
            letters[key] = gomp.bytes(pickle.dumps(self.rng.choice(MAKERS)(number)))
            self.mine.append(key)
        keys = list(letters)
        for key in self.rng.sample(keys, min(3, len(keys))):
            opened = open_letter(letters, key)
            if opened is not None:
                self.shelf.append((int(key.rpartition("/")[2]), opened))
        for number, thing in self.shelf:
            check(number, thing)
        self.shelf = self.shelf[-8:]


def open_letter(letters: gomp.Map[gomp.Bytes], key: str) -> Any:
    """What is in it, or None; it is not in the map any more."""
    opened = None
    letter = letters.get(key)
    if letter is not None:
        with contextlib.suppress(gomp.StaleReference):
            opened = pickle.loads(bytes(letter))
        letters.pop(key, None)
    return opened


def open_all() -> None:
    letters = LETTERS.get()
    for key in list(letters):
        opened = open_letter(letters, key)
        if opened is not None:
            check(int(key.rpartition("/")[2]), opened)
