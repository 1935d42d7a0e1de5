"""What the Ps of the service run in a soak, beside ``mixed``: everything else that a heap is for, at an easy pace, for ever."""

from __future__ import annotations

import random

import gomp
from tests.faults import crowd
from workers import stdlib_trees

PAUSE_S = 0.02
KEYS = 200


@gomp.struct
class Note:
    number: int
    next: Note


NOTES = gomp.Global("soak.notes", gomp.Map[str, Note])
POOL = gomp.Pool(Note)


def ignore(number: int) -> None:
    """A cleanup's function."""


def find_notes() -> gomp.Map[str, Note]:
    """The map that all share. Of two that are made at the same time one is lost, with what little is in it."""
    notes = NOTES.get()
    if notes is None:
        notes = gomp.map(str, Note)
        NOTES.set(notes)
    return notes


def write_notes(rng: random.Random, who: str) -> None:
    """Put some of one's own keys into the map, with cleanups and weak pointers, and take some out."""
    notes = find_notes()
    for _ in range(10):
        key, number = f"{who} {rng.randrange(KEYS)}", rng.randrange(1_000_000)
        note = gomp.new(Note, number=number)
        gomp.add_cleanup(note, ignore, number)
        weak = gomp.weak(note)
        notes[key] = note
        if (found := weak.value()) is None or found.number != number:
            raise AssertionError(f"a weak pointer to note {number}, which is held, leads to {found}")
        notes.pop(f"{who} {rng.randrange(KEYS)}", None)


def converse(share: int, shares: int) -> None:
    """A P's share, which is all it can do."""
    rng = random.Random(share)
    while True:
        crowd.talk(rng.randrange(10_000))
        write_notes(rng, f"P{share}")
        note = POOL.get()
        note.number = share
        POOL.put(note)
        gomp.sleep(PAUSE_S)


def visit(name: str, how: str) -> None:
    """Of a process that attaches: work a little, and leave in this way. Who comes to ``fill`` it makes every tree that ``mixed`` will have: it begins
    anew whenever its P was killed, so that the last would come in the last minutes of an hour."""
    rt = gomp.attach(name, timeout=30)
    rng = random.Random(how)
    if how == "fill":
        stdlib_trees.build_share(0, len(stdlib_trees.library_files()))
    for _ in range(5):
        write_notes(rng, "visitor")
        crowd.talk(rng.randrange(10_000))
    print("worked", flush=True)
    if how in ("close", "fill"):
        rt.close()
    elif how == "stay":  # to be killed
        while True:
            write_notes(rng, "visitor")


def main(arguments: list[str]) -> None:
    """Of one that was forked for it."""
    visit(*arguments)
