"""The coordinator's part in ``gomp.who_retains``: a shortest path from a root to an object, as numbers.

The world is stopped meanwhile, so the path is there as a whole; what it says is gathered before the world starts again. The asker, who knows the
classes, gives it names (:mod:`~gomp.runtime.retention`). Of a path with more objects than 2 * KEPT the middle is left out.
"""

from __future__ import annotations

import ctypes
from typing import Any

from gomp.core.gc.retains import (
    D_END,
    D_MASK,
    D_OBJECT,
    D_SCANNED,
    D_SIZE,
    D_TYPE,
    DESCRIPTION_BYTES,
    describe,
    slot_at,
)
from gomp.core.gc.verify import trace
from gomp.core.mutator.transit import CLAIMED
from gomp.core.shm import layout
from gomp.core.shm.atomics import load64, store64
from gomp.core.shm.records import (
    POOL_PRIVATE,
    POOL_VICTIM_PRIVATE,
    POOL_VICTIM_RING,
    RUNTIME,
    SPECIAL_QUEUED,
    SPECIAL_RUNNING,
    SPECIAL_WEAK,
    global_dtype,
    p_dtype,
    pool_head_dtype,
    runtime_dtype,
    special_dtype,
    view,
)
from gomp.runtime.verify import Scratch, count_objects, visited_bytes

KEPT = 16
_HEAD_BYTES = 128  # of an object: enough for the key of a map's entry, unless that is long
_ENTRY_VALUE = (16, 24)  # where an entry has its value, without and with its type before it
_P_MASK = 0xFFFF  # of the owner of a special record


class Search:
    """One search. World: stopped. Its memory, 16 bytes for each object and a 64th of the heap, goes when it does."""

    def __init__(self, p: int, slot: int) -> None:
        """For a path to the object of P ``p``'s handle ``slot``, without that handle."""
        self._own = _handles(p) + 8 * slot
        self._word = int(load64(self._own))
        n = count_objects()
        sizes = {trace.T_VISITED: visited_bytes(), trace.T_QUEUE: 8 * n + 8, trace.T_PARENTS: 8 * n + 8}
        self._memory = {word: Scratch() for word in sizes}
        self._record, self._description = Scratch(), Scratch()
        self._t = self._record.zeroed(trace.TRACE_BYTES)
        for word, size in sizes.items():
            store64(self._t + word, self._memory[word].zeroed(size))
        self._out = self._description.zeroed(DESCRIPTION_BYTES)

    def run(self) -> dict[str, Any]:
        """The path: its ``root``, or None if there is no path; its ``nodes``, and how many in their middle are ``left_out``.

        ``asked`` is the address that was asked about, in the last of them.
        """
        target = int(slot_at(self._word))
        store64(self._t + trace.T_TARGET, target)
        store64(self._t + trace.T_SKIPPED, self._own)
        trace.trace(self._t)
        if not load64(self._t + trace.T_FOUND):
            return {"root": None, "nodes": [self._node(target, self._word, 0)], "left_out": 0, "asked": self._word}
        root, slots = self._chain()
        described = _describe_root(root)
        if described["kind"] == "finalizer" and not described["is_due"]:
            slots.insert(0, int(slot_at(described["word"])))
        return {"root": described, **self._nodes(described["word"], slots), "asked": self._word}

    def _chain(self) -> tuple[int, list[int]]:
        """The root's address, and the slots of the objects from it to the target."""
        found = int(load64(self._t + trace.T_TAIL))
        queue, parents = (_words(self._memory[at].address, found) for at in (trace.T_QUEUE, trace.T_PARENTS))
        at = found - 1
        slots = [queue[at]]
        while parents[at] >= 0:
            at = parents[at]
            slots.append(queue[at])
        return -parents[at], slots[::-1]

    def _nodes(self, word: int, slots: list[int]) -> dict[str, Any]:
        left_out = max(len(slots) - 2 * KEPT, 0)
        nodes = []
        for i, slot in enumerate(slots):
            if KEPT <= i < KEPT + left_out:
                continue
            if i == KEPT + left_out and left_out:
                word = int(load64(trace.seek(self._t, slots[i - 1], slot)))
            is_last = i == len(slots) - 1
            out = 0 if is_last else int(trace.seek(self._t, slot, slots[i + 1]))
            nodes.append(self._node(slot, word, out))
            if out:
                word = int(load64(out))
        return {"nodes": nodes, "left_out": left_out}

    def _node(self, slot: int, word: int, out: int) -> dict[str, Any]:
        """An object that ``word`` leads to, and whose reference at ``out`` leads on."""
        describe(slot, self._out)
        found = {
            name: int(load64(self._out + at)) for name, at in (("at", D_OBJECT), ("size", D_SIZE), ("type", D_TYPE))
        }
        obj, end = found["at"], int(load64(self._out + D_END))
        node: dict[str, Any] = found | {
            "mask": int(load64(self._out + D_MASK)) if load64(self._out + D_SCANNED) else None,
            "inside": max(word - obj, 0),
            "length": int(load64(obj)),
            "out": out - obj if out else None,
        }
        if out - slot in _ENTRY_VALUE:
            node["head"] = ctypes.string_at(obj, min(_HEAD_BYTES, end - obj)).hex()
        return node


def _handles(p: int) -> int:
    return layout.HANDLES_BASE + 8 * layout.HANDLES_PER_P * p


def _words(address: int, n: int) -> memoryview[int]:
    return memoryview((ctypes.c_int64 * n).from_address(address)).cast("B").cast("q")


# --- roots ------------------------------------------------------------------------------------------------------------


def _describe_root(at: int) -> dict[str, Any]:
    """What the word at ``at`` is, by the region of the metadata in which it lies."""
    found: dict[str, Any] = {"word": int(load64(at))}
    if layout.is_heap_addr(at) or layout.GS_BASE <= at < layout.SPECIALS_BASE:
        return found | {"kind": "goroutine"}
    if layout.GLOBALS_BASE <= at < layout.TASKS_BASE:
        record = view(global_dtype, at)[0]
        return found | {
            "kind": "global",
            "name": bytes(record.name).decode(errors="replace"),
            "type": int(record.type_key),
        }
    if layout.SPECIALS_BASE <= at < layout.POOLS_BASE:
        return _describe_special(at)
    if layout.POOLS_BASE <= at < layout.HANDLES_BASE:
        return found | _describe_pool(at)
    if layout.HANDLES_BASE <= at < layout.NATIVE_ROOTS_BASE:
        p, slot = divmod((at - layout.HANDLES_BASE) // 8, layout.HANDLES_PER_P)
        return found | _of_p(p) | {"kind": "transit" if _is_sent(p, slot) else "reference"}
    if layout.NATIVE_ROOTS_BASE <= at < layout.WBUFS_BASE:
        return found | _of_p((at - layout.NATIVE_ROOTS_BASE) // layout.NATIVE_ROOTS_BYTES) | {"kind": "stack"}
    return (
        found | _of_p((at - layout.PS_BASE) // layout.P_STRIDE) | {"kind": "stack"}
    )  # a result that is not rooted yet


def _of_p(p: int) -> dict[str, int]:
    return {"p": p, "pid": int(view(p_dtype, layout.p_addr(p))[0].xpid)}


def _is_sent(p: int, slot: int) -> bool:
    """Whether a ticket of the P's says that the slot is on its way to somebody."""
    words = _words(_handles(p), int(view(p_dtype, layout.p_addr(p))[0].handles))
    return any(CLAIMED < word < 0 and -word & (layout.HANDLES_PER_P - 1) == slot for word in words)


def _describe_pool(at: int) -> dict[str, Any]:
    pool, place = divmod(at - layout.POOLS_BASE, layout.POOL_BYTES)
    p, word = divmod(place, layout.POOL_RECORD)
    head = view(pool_head_dtype, layout.POOL_HEADS_BASE + pool * layout.POOL_HEAD_BYTES)[0]
    return {
        "kind": "pool",
        "name": bytes(head.name).decode(errors="replace"),
        "type": int(head.type_key),
        "is_ring": word not in (POOL_PRIVATE, POOL_VICTIM_PRIVATE),
        "is_victim": word in (POOL_VICTIM_PRIVATE, POOL_VICTIM_RING),
        **_of_p(p),
    }


def _describe_special(at: int) -> dict[str, Any]:
    record = view(special_dtype, layout.SPECIALS_BASE + (at - layout.SPECIALS_BASE) // 64 * 64)[0]
    if record.kind == SPECIAL_WEAK:
        return {"kind": "weak", "word": int(record.value)}
    is_due = int(record.xstate) in (SPECIAL_QUEUED, SPECIAL_RUNNING)
    return {"kind": "finalizer", "word": int(record.addr), "is_due": is_due, **_of_p(int(record.owner) & _P_MASK)}


def may_search(p: int, slot: int) -> bool:
    """Whether P ``p`` has such a handle, and something is in it."""
    if not 0 <= p < int(view(runtime_dtype, RUNTIME)[0].nrecords):
        return False
    handles = int(view(p_dtype, layout.p_addr(p))[0].handles)
    return 0 <= slot < handles and layout.HEAP_BASE <= int(load64(_handles(p) + 8 * slot)) < layout.HEAP_LIMIT
