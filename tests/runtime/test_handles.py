"""Handles: slots are reused, never shared, and outlive nothing."""

from __future__ import annotations

import os

import pytest

from gomp.core.mutator import boundary
from gomp.errors import RuntimeLost
from gomp.runtime.handles import HandleTable, table
from gomp.runtime.references import slot_of
from gomp.runtime.structs import new, struct


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
    free = len(table.free)
    for _ in range(10):
        assert cell.next is None
        with pytest.raises(TypeError):
            cell.next = 3
    assert len(table.free) == free


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
    assert slot in table.free


def test_a_closed_table_hands_out_nothing():
    closed = HandleTable()
    assert not closed.is_open
    with pytest.raises(RuntimeLost, match="no runtime is open"):
        closed.take()
    closed.release(5)
    assert closed.free == []


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
