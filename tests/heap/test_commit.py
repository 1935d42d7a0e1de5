"""Commits: their budget, and what signals do to them."""

from __future__ import annotations

import itertools
import os
import signal

from gomp import forked
from gomp.core.shm import commit as committing
from gomp.core.shm import segments
from gomp.core.shm.libc import EINTR, ENOMEM
from gomp.core.shm.records import MHEAP, mheap_dtype, view

MIB = 1 << 20


def set_budget(size):
    view(mheap_dtype, MHEAP)[0].xcommit_budget = size


def test_a_commit_takes_its_bytes_from_the_budget_or_nothing(mapped):
    set_budget(3 * MIB)
    assert committing.commit(mapped.heap_fd, 0, 2 * MIB) == 0
    assert committing.commit(mapped.heap_fd, 0, 2 * MIB) == -ENOMEM
    assert committing.commit(mapped.heap_fd, 0, MIB) == 0
    assert view(mheap_dtype, MHEAP)[0].xcommit_budget == 0


def test_a_large_commit_that_fails_does_not_fail_small_ones_meanwhile(mapped):
    set_budget(MIB)
    committing.commit(mapped.heap_fd, 0, 1)

    def fail_large_ones():
        segments.map_segments(mapped)
        while committing.commit(mapped.heap_fd, 0, MIB) == -ENOMEM:
            pass

    child = forked.fork(fail_large_ones)
    try:
        codes = {committing.commit(mapped.heap_fd, 0, 1) for _ in range(100_000)}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert codes == {0}


def test_what_is_committed_while_the_headroom_is_looked_up_is_not_given_out_again(mapped):
    set_budget(8 * MIB)
    before = committing.committed_so_far()
    headroom = 8 * MIB
    assert committing.commit(mapped.heap_fd, 0, 6 * MIB) == 0
    committing.renew_budget(before, headroom)
    assert committing.commit(mapped.heap_fd, 6 * MIB, 3 * MIB) == -ENOMEM
    assert committing.commit(mapped.heap_fd, 6 * MIB, 2 * MIB) == 0


def test_a_budget_is_renewed_whatever_was_left_of_it(mapped):
    for left in (0, MIB, committing.ENDLESS):
        set_budget(left)
        for room in (3 * MIB, 2 * MIB, 0, committing.ENDLESS):
            committing.renew_budget(committing.committed_so_far(), room)
            assert committing.budget_left() == room


def test_what_is_returned_while_the_headroom_is_looked_up_hides_nothing_that_is_taken(mapped):
    """20 come back, the room is counted with them, and they are gone again: they are not there twice."""
    set_budget(100 * MIB)
    before = committing.committed_so_far()
    committing.return_budget(20 * MIB)
    room = 120 * MIB
    assert committing.commit(mapped.heap_fd, 0, 20 * MIB) == 0
    committing.renew_budget(before, room)
    assert committing.budget_left() == 100 * MIB


def test_a_signal_does_not_fail_a_commit(monkeypatch):
    answers = itertools.chain([-EINTR, -EINTR, 0])
    monkeypatch.setattr(committing, "fallocate", lambda fd, offset, size: next(answers))
    plain = getattr(committing.fallocate_all, "py_func", committing.fallocate_all)
    assert plain(0, 0, MIB) == 0
    assert list(answers) == []
