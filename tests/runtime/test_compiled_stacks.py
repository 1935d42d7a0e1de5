"""Compiled functions that recurse or loop without an end, on the stacks of several threads."""

from __future__ import annotations

import threading

import pytest
from some_programs import Node, p_record

from gomp.core.shm.records import MHEAP, POLL_INTERRUPT, STATUS_SAFE, mheap_dtype, view
from gomp.errors import Interrupted, OutOfMemory, StackOverflow
from gomp.runtime import compiled as compiled_programs
from gomp.runtime.compiled import compiled
from gomp.runtime.slots import empty
from gomp.runtime.structs import new


def test_endless_recursion_is_stack_overflow(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n + 1) if n >= 0 else 0

    for _ in range(2):
        with pytest.raises(StackOverflow, match="recursed deeper"):
            deeper(0)
        assert p_record().xstatus == STATUS_SAFE
    assert deeper(-1) == 0


def test_recursion_for_whose_roots_there_is_no_memory_is_out_of_memory(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n - 1) if n > 0 else 0

    assert deeper(0) == 0
    mheap = view(mheap_dtype, MHEAP)[0]
    mheap.xcommit_budget = 0
    with pytest.raises(OutOfMemory, match="roots of so deep a native stack"):
        deeper(50_000)
    mheap.xcommit_budget = 1 << 40
    assert deeper(50_000) == 50_000


def test_the_first_stack_of_a_p_needs_no_room_in_a_full_cgroup(heap):
    @compiled
    def triple(n):
        return 3 * n

    view(mheap_dtype, MHEAP)[0].xcommit_budget = 0
    assert triple(14) == 42
    assert p_record().native_committed > 0


def test_endless_recursion_in_a_thread(heap):
    @compiled
    def deeper(n):
        return 1 + deeper(n + 1) if n >= 0 else 0

    caught = []

    def run():
        try:
            deeper(0)
        except StackOverflow as error:
            caught.append(error)

    deeper(-1)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_a_poll_ends_a_loop_that_never_ends(heap):
    @compiled
    def spin():
        n = 0
        while n >= 0:
            n = (n + 1) & 7
        return n

    @compiled
    def sweep(n):
        s = 0
        for i in range(n):
            s ^= i
        return s

    for function, args in ((spin, ()), (sweep, (1 << 62,))):
        function.program(tuple(map(type, args)))
        p_record().xpoll |= POLL_INTERRUPT
        with pytest.raises(Interrupted):
            function(*args)
        assert p_record().xpoll == 0


def test_another_thread_may_run_a_program_after_this_one_was_prepared(heap, monkeypatch):
    """The interpreter may let it at any instruction of Python: here where the result's slot is taken, with a stack that lies above ours."""

    @compiled
    def below(node: Node, n: int) -> Node:
        return below(node, n - 1) if n > 0 else node

    def after_another(cls):
        monkeypatch.undo()
        p_record().stack_low, p_record().stack_thread = 1 << 46, 1
        return empty(cls)

    node = new(Node)
    assert below(node, 10) == node
    monkeypatch.setattr(compiled_programs, "empty", after_another)
    assert below(node, 1000) == node
    assert p_record().stack_thread == threading.get_ident()
