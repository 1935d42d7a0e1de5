"""Handles: slots are reused, never shared, and outlive nothing."""

from __future__ import annotations

import os

import pytest

import gomp
from gomp.core.mutator import boundary
from gomp.core.mutator import weak as weak_kernels
from gomp.core.sched.status import RETRY
from gomp.errors import RuntimeLost
from gomp.runtime import handles, hashmap
from gomp.runtime.handles import HandleTable, table
from gomp.runtime.references import read_inside, slot_of
from gomp.runtime.structs import new, struct
from tests.free_slots import free_handles, free_slots


@struct
class Cell:
    next: Cell
    n: int


def test_a_dead_reference_gives_its_slot_back_empty(heap):
    cell = new(Cell)
    slot = slot_of(cell)
    assert boundary.handle_addr(slot) != 0
    del cell
    assert boundary.handle_addr(slot) == 0
    assert slot_of(new(Cell)) == slot


def test_slots_are_not_shared_between_live_references(heap):
    cells = [new(Cell, n=i) for i in range(3000)]
    assert len({slot_of(c) for c in cells}) == 3000
    assert [c.n for c in cells] == list(range(3000))
    assert boundary.handles_in_use() < 4096
    del cells
    again = [new(Cell) for _ in range(3000)]
    assert boundary.handles_in_use() < 4096
    assert len(again) == 3000


def test_reading_none_or_failing_leaks_no_slot(heap):
    cell = new(Cell)
    free = free_slots()
    for _ in range(10):
        assert cell.next is None
        with pytest.raises(TypeError):
            cell.next = 3
    assert free_slots() == free


def test_a_wait_that_ends_with_an_exception_leaks_no_slot(heap, monkeypatch):
    cell, free = new(Cell, new(Cell)), free_slots()
    weak, numbers = gomp.weak(cell), gomp.map(int, Cell)
    numbers[1] = cell
    gomp.globals["cell"] = cell

    def refuse(*args):
        return RETRY

    def end():
        raise KeyboardInterrupt

    free = free_slots()
    monkeypatch.setattr(handles, "wait_until_enterable", end)
    for module, name, use in [
        (handles.kernels, "read_reference", lambda: cell.next),
        (handles.kernels, "read_inside", lambda: read_inside(Cell, cell, 8)),
        (handles.kernels, "new_struct", lambda: new(Cell)),
        (handles.kernels, "new_array", lambda: gomp.array(int, 3)),
        (hashmap._calls, "map_get", lambda: numbers[1]),
        (hashmap._calls, "map_remove", lambda: numbers.pop(1)),
        (hashmap._calls, "map_begin", lambda: list(numbers)),
        (weak_kernels, "weak_value", weak.value),
        (weak_kernels, "find_weak", lambda: gomp.weak(cell)),
        (handles.kernels, "read_inside", lambda: gomp.pointer(cell, "n")),
        (boundary, "read_global", lambda: gomp.globals["cell"]),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(module, name, refuse)
            with pytest.raises(KeyboardInterrupt):
                use()
        assert free_slots() == free, name


@pytest.mark.parametrize("status", [boundary.WAIT_CREDIT, boundary.WAIT_BASE + 1, -boundary.WAIT_BASE - 1])
def test_an_allocation_whose_wait_ends_with_an_exception_leaks_no_slot(heap, monkeypatch, status):
    def end(*args):
        raise KeyboardInterrupt

    new(Cell)
    free = free_slots()
    for name in ("wait_for_begin", "wait_for_end", "wait_for_credit"):
        monkeypatch.setattr(type(table._collector), name, end)
    outcomes = [status]
    monkeypatch.setattr(
        handles.kernels, "new_struct", lambda *args: outcomes.pop() if outcomes else boundary.new_struct(*args)
    )
    with pytest.raises(KeyboardInterrupt):
        new(Cell)
    assert free_slots() == free


def test_numbers_are_never_used_twice(heap):
    old = new(Cell)
    table.close()
    table.open(0)
    fresh = new(Cell)
    assert slot_of(fresh) == 0
    assert old._handle != fresh._handle
    del old  # must not clear the slot of the new runtime
    assert boundary.handle_addr(0) != 0


def test_opening_clears_what_a_former_process_left(heap):
    kept = new(Cell)
    slot = slot_of(kept)
    table.close()
    table.open(0)
    assert boundary.handle_addr(slot) == 0
    assert table.first + slot in free_handles()


def test_a_closed_table_hands_out_nothing():
    closed = HandleTable()
    assert not closed.is_open
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        closed.grow()
    assert closed.free is None


def test_a_fork_does_not_inherit_references(heap):
    cell = new(Cell)
    child = os.fork()
    if child == 0:
        try:
            _ = cell.n
        except RuntimeLost:
            del cell
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert cell.n == 0
