"""Finalizers, cleanups and weak pointers for the harness of kills: in a process that lives each runs exactly once, those taken back never.

The :data:`LEDGER` of a process says what it has registered, and what of that has run. Objects die at once, or after a while in the hands of this
process, or of whoever finds them in a global: so also by the death of others.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
from collections.abc import Callable

import gomp

STEP = 6
HELD = 20
CLEANUPS = ("cleanup", "second cleanup")
KINDS = ("finalizer", *CLEANUPS)


@gomp.struct
class Mortal:
    next: Mortal
    number: int
    process: int


PLACES = [gomp.Global(f"faults.mortal{i}", Mortal) for i in range(8)]


class Ledger:
    """What this process has registered: by the number of the object, and what it is."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._registered: dict[tuple[str, int], bool] = {}  # whether it has run
        self.ran = 0
        self.problems: list[str] = []

    def number(self) -> int:
        return next(self._numbers)

    def register(self, kind: str, number: int) -> None:
        self._registered[kind, number] = False

    def take_back(self, kind: str, number: int) -> None:
        with self._lock:
            if self._registered.pop((kind, number)):
                self.problems.append(f"the {kind} of {number} has run while the object was held")

    def note(self, kind: str, number: int) -> None:
        """It runs."""
        with self._lock:
            self.ran += 1
            if self._registered.get((kind, number)) is not False:
                self.problems.append(f"the {kind} of {number} runs twice, or though it was taken back")
            self._registered[kind, number] = True

    def has_run(self, kind: str, number: int) -> bool:
        return self._registered.get((kind, number), False)

    def left(self) -> list[tuple[str, int]]:
        """What has not run: the kinds, and the numbers of the objects."""
        with self._lock:
            return [which for which, has_run in self._registered.items() if not has_run]

    def check(self) -> None:
        if self.problems:
            raise AssertionError("; ".join(self.problems[:5]))

    def settle(self, seconds: float) -> None:
        """Collect until everything has run that this process has registered; nothing of it may be held any more."""
        until = time.monotonic() + seconds
        while self.left():
            if time.monotonic() > until:
                raise AssertionError(f"{len(self.left())} of {self.ran} do not run: {self.left()[:9]}")
            gc.collect()  # an exception and its frames may hold some
            gomp.gc()
            time.sleep(0.02)
        self.check()


LEDGER = Ledger()


def cleanup_of(kind: str) -> Callable[[int], None]:
    return lambda number: LEDGER.note(kind, number)


def finalize(mortal: Mortal) -> None:
    LEDGER.note("finalizer", mortal.number)


def note_cleanup(number: int) -> None:
    LEDGER.note(CLEANUPS[0], number)


@gomp.compiled
def finalize_compiled(mortal: Mortal) -> None:
    """As Python does it, in the middle of a program, of which a collection may find only the frames."""
    litter = gomp.array(Mortal, 100)
    litter[0] = gomp.new(Mortal, None, mortal.number, mortal.process)
    gomp.set_finalizer(mortal, finalize)
    if litter[0].number != mortal.number:
        raise ValueError("an object that only a frame holds is lost while Python runs")


@gomp.compiled
def clean_compiled(mortal: Mortal) -> gomp.Cleanup:
    return gomp.add_cleanup(mortal, note_cleanup, mortal.number)


class Registrar:
    """Registers, holds for a while, and lets go. ``process`` tells whose objects it finds in globals."""

    def __init__(self, process: int, rng: random.Random) -> None:
        self.process, self.rng = process, rng
        self.held: list[tuple[Mortal, gomp.Weak[Mortal]]] = []
        self.watched: list[tuple[int, gomp.Weak[Mortal]]] = []

    def step(self) -> None:
        for _ in range(STEP):
            self._make()
        self._look()
        LEDGER.check()

    def _make(self) -> None:
        number = LEDGER.number()
        mortal = gomp.new(Mortal, self._below(), number, self.process)
        draw = self.rng.random()
        if draw < 0.7:
            LEDGER.register("finalizer", number)
            if draw < 0.4:
                gomp.set_finalizer(mortal, finalize)
            else:
                finalize_compiled(mortal)
            if draw < 0.1:
                gomp.set_finalizer(mortal, None)
                LEDGER.take_back("finalizer", number)
        for kind in CLEANUPS[: self.rng.randrange(3)]:
            LEDGER.register(kind, number)
            if kind == CLEANUPS[0] and draw < 0.5:
                cleanup = clean_compiled(mortal)
            else:
                cleanup = gomp.add_cleanup(mortal, cleanup_of(kind), number)
            if self.rng.random() < 0.2:
                cleanup.stop()
                LEDGER.take_back(kind, number)
        pointer = gomp.weak(mortal)
        self.watched.append((number, pointer))
        if self.rng.random() < 0.3:
            self.held.append((mortal, pointer))
        if self.rng.random() < 0.2:
            self.rng.choice(PLACES).set(mortal)

    def _below(self) -> Mortal | None:
        """What an object leads to, of this process or of any, and keeps; few, for of a chain one is finalized in each cycle."""
        draw = self.rng.random()
        if draw < 0.1:
            return self.rng.choice(PLACES).get()
        return self.held[-1][0] if self.held and draw < 0.3 else None

    def _look(self) -> None:
        for mortal, pointer in self.held:
            if pointer.value() != mortal or pointer != gomp.weak(mortal):
                raise AssertionError(f"a weak pointer has lost number {mortal.number}, which is held")
            for kind in KINDS:
                if LEDGER.has_run(kind, mortal.number):
                    raise AssertionError(f"the {kind} of number {mortal.number} has run, and it is held")
        for number, pointer in self.watched:
            is_over = any(LEDGER.has_run(kind, number) for kind in KINDS)
            found = pointer.value()
            if found is not None and (is_over or found.number != number):
                raise AssertionError(f"a weak pointer to number {number} leads to {found!r}")
        self.watched = self.rng.sample(self.watched, min(len(self.watched), 2 * HELD))
        while len(self.held) > HELD:
            self.held.pop(self.rng.randrange(len(self.held)))
