"""``gomp.who_retains(obj)``: what keeps an object, as a shortest path from a root.

The coordinator finds the path while the world is stopped (:mod:`~gomp.runtime.retainers`): it is true of that moment. Here it gets names.
The handle of the asker's own reference does not count. Weak pointers keep nothing; and what the function of a cleanup holds, its process refers to
as to anything else.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gomp.errors import StaleReference
from gomp.runtime import current, shapes
from gomp.runtime.handles import table
from gomp.runtime.ndarrays import memory_of
from gomp.runtime.references import Reference, called, slot_of
from gomp.runtime.shapes import RING, Object, class_or_none

__all__ = ["Retention", "who_retains"]


@dataclass(frozen=True)
class Root:
    """Where a path begins.

    ``kind`` is "global", "reference" (in Python), "transit", "stack", "goroutine", "pool", "finalizer", "weak" (the cell that weak pointers share),
    or "own", the asker's own reference and nothing else.
    """

    kind: str
    text: str  # for people
    name: str = ""  # of a global or a pool
    p: int | None = None  # the P to which it belongs, if it does, and its process
    pid: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Step:
    """From the object at ``address``, a ``holder``, through the reference that is called ``field``."""

    holder: str
    field: str
    address: int

    def __str__(self) -> str:
        return f"{self.holder}{self.field}"


@dataclass(frozen=True)
class Retention:
    """A shortest path to an object."""

    root: Root
    steps: tuple[Step, ...]
    target: str  # what the object is
    address: int
    left_out: int = 0  # of a very long path, objects that are not among the steps
    gap: int = 0  # after how many steps they are missing

    @property
    def is_only_mine(self) -> bool:
        """Whether nothing but the reference that was asked about keeps the object."""
        return self.root.kind == "own"

    def __str__(self) -> str:
        lines = [f"{self.target} @{self.address:#x} is kept by", f"  {self.root}"]
        lines += [f"  → {step.holder} @{step.address:#x}, through {step.field}" for step in self.steps]
        if self.left_out:
            lines.insert(2 + self.gap, f"  … {self.left_out:,} objects more")
        return "\n".join(lines) if not self.is_only_mine else f"{lines[0]} {self.root}"

    def __repr__(self) -> str:
        shown = [str(self.root), *map(str, self.steps)]
        if self.left_out:
            shown.insert(1 + self.gap, f"… {self.left_out:,} objects more")
        return f"<{self.target} @{self.address:#x} is kept by {' → '.join(shown)}>"


def who_retains(obj: Any) -> Retention:
    """Print and return a shortest path from a root to ``obj``, other than through this reference itself. It stops the world: for debugging.

    Raises TypeError for what is no reference into the shared heap or a whole array in it, RuntimeLost.
    """
    if isinstance(obj, np.ndarray):
        obj = memory_of(obj, "gomp.who_retains")
    if not isinstance(obj, Reference):
        raise TypeError(f"gomp.who_retains: {type(obj).__name__} is no reference into the shared heap")
    found = _answer(obj)
    print(found)
    return found


def _answer(obj: Reference) -> Retention:
    slot, peer = slot_of(obj), current.peer()
    answer = peer.ask("retainers", p=table.p_idx, slot=slot)
    if "problem" in answer.fields:
        raise StaleReference(answer["problem"])
    path = [Object(**node) for node in answer["nodes"]]
    cls = type(obj)
    if answer["root"] is None:
        me = Root("own", "nothing but this reference of the process that asks", p=table.p_idx)
        return Retention(me, (), called(cls), answer["asked"])
    gap = len(path) // 2 if answer["left_out"] else len(path)
    said = [(answer["asked"], cls), *_references_to({obj.at for obj in path})]
    found = shapes.resolve(path[:gap], _first_shape(answer["root"]), said)
    if answer["left_out"]:
        found += shapes.resolve(path[gap:], None, said)
    before = _steps(path[:gap], found[:gap], is_end=not answer["left_out"])
    after = _steps(path[gap:], found[gap:], is_end=True)
    is_part = cls not in found[-1] and bool(found[-1])
    target = f"{called(cls)} in {shapes.name(found[-1], path[-1])}" if is_part else called(cls)
    return Retention(_root(answer["root"]), (*before, *after), target, answer["asked"], answer["left_out"], len(before))


def _references_to(addresses: set[int]) -> Iterator[tuple[int, type]]:
    """Of this process's references to these addresses, the address and the class."""
    for ref in gc.get_objects():
        if issubclass(type(ref), Reference):
            slot = getattr(ref, "_handle", -1) - table.first  # another thread may be making it
            if slot >= 0 and table.words[slot] in addresses:
                yield table.words[slot], type(ref)


def _steps(path: list[Object], found: list[list[Any]], is_end: bool) -> list[Step]:
    """The steps of a piece of a path; within a map they are one."""
    steps, holder, address = [], "", 0
    for obj, may_be in zip(path, found, strict=True):
        if obj.out is None:
            break
        if not holder:
            holder, address = shapes.name(may_be, obj), obj.at
        field = shapes.label(may_be, obj)
        if field or (obj is path[-1] and not is_end):
            steps.append(Step(holder, field, address))
            holder = ""
    return steps


# --- roots ------------------------------------------------------------------------------------------------------------


def _first_shape(root: dict[str, Any]) -> Any:
    """What a root says of the object that it refers to."""
    if root["kind"] == "pool" and root["is_ring"]:
        return RING
    return class_or_none(root.get("type", 0))


def _root(root: dict[str, Any]) -> Root:
    return Root(root["kind"], _text(root), root.get("name", ""), root.get("p"), root.get("pid"))


def _text(root: dict[str, Any]) -> str:
    match root["kind"]:
        case "global":
            return f"global {root['name']!r}"
        case "reference":
            return f"a reference of {_process(root)}"
        case "transit":
            return f"a reference that {_process(root)} has sent and nobody has received yet"
        case "stack":
            return f"the stack of a compiled program on {_process(root)}"
        case "pool":
            how = "put aside, until the next collection," if root["is_victim"] else "put aside"
            return f"pool {root['name']!r}, {how} by {_process(root)}"
        case "finalizer":
            how = "which is due" if root["is_due"] else "whose object leads to it"
            return f"a finalizer of {_process(root)}, {how}"
        case "goroutine":
            return "the stack of a goroutine"
        case _:
            return "weak pointers, as their cell"


def _process(root: dict[str, Any]) -> str:
    if root.get("p") == table.p_idx:
        return f"this process (P{root['p']}, pid {root['pid']})"
    programs = ", ".join(root.get("programs", ()))
    return f"P{root['p']} (pid {root['pid']}{f', which runs {programs}' if programs else ''})"
