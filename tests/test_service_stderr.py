"""Stderr that nobody reads: nobody waits for it, and what was lost is told."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from served import START_S

from gomp.service import stderr
from gomp.service.stderr import Unblocked

ROOM = 4096
LINE = b"x" * 99 + b"\n"
END_S = 2
CYCLES = 40  # of three lines each, which have no room


@pytest.fixture
def pipe(monkeypatch):
    """A pipe of one page, as its two ends; a line waits no longer than a moment."""
    monkeypatch.setattr(stderr, "WAIT_S", 0.02)
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, ROOM)
    yield ends
    for end in ends:
        os.close(end)


def fill(file):
    """Write lines until none has room; how many were written."""
    n = 0
    while not file._lost:
        file.write(LINE)
        n += 1
    return n - 1


def test_a_line_that_has_no_room_is_given_up_and_told_of_later(pipe):
    file = Unblocked(pipe[1])
    assert fill(file) == ROOM // len(LINE)
    file.write(LINE)
    assert os.read(pipe[0], 2 * ROOM) == LINE * (ROOM // len(LINE))
    file.write(b"on we go\n")
    file.write(b"and on\n")
    assert os.read(pipe[0], ROOM) == b"[2 lines lost before this one: nobody read them]\non we go\nand on\n"


def test_who_writes_much_waits_once(pipe, monkeypatch):
    monkeypatch.setattr(stderr, "WAIT_S", 0.2)
    file = Unblocked(pipe[1])
    fill(file)
    began = time.monotonic()
    for _ in range(100):
        file.write(LINE)
    assert time.monotonic() - began < 0.2


def test_a_text_that_is_cut_ends_its_line_before_the_next(pipe):
    file = Unblocked(pipe[1])
    file.write(b"y" * (2 * ROOM) + b"\n")
    assert os.read(pipe[0], 2 * ROOM) == b"y" * ROOM
    file.write(b"next\n")
    assert os.read(pipe[0], ROOM) == b"\n[1 lines lost before this one: nobody read them]\nnext\n"


def test_a_pipe_that_may_not_be_opened_is_not_waited_for_either(pipe, monkeypatch):
    monkeypatch.setattr(stderr, "_reopen_without_blocking", lambda fd: False)
    file = Unblocked(pipe[1])
    fill(file)
    assert os.get_blocking(pipe[1])
    os.read(pipe[0], ROOM)
    file.write(b"next\n")
    assert os.read(pipe[0], ROOM).endswith(b"next\n")


def test_the_other_users_of_a_pipe_are_left_as_they_were(pipe):
    others = os.dup(pipe[1])
    Unblocked(pipe[1])
    assert (os.get_blocking(others), os.get_blocking(pipe[1])) == (True, False)
    os.close(others)


def test_a_socket_is_not_waited_for_and_goes_on_blocking_for_others(monkeypatch):
    monkeypatch.setattr(stderr, "WAIT_S", 0.02)
    ours, theirs = socket.socketpair()
    fd = os.dup(ours.fileno())
    with ours, theirs:
        file = Unblocked(fd)
        fill(file)
        assert os.get_blocking(ours.fileno())
        theirs.settimeout(5)
        while theirs.recv(1 << 20)[-5:] != b"next\n":
            file.write(b"next\n")
    file.close()
    os.close(fd)  # it was left open


def test_no_reader_is_no_error():
    ours, theirs = os.pipe()
    file = Unblocked(theirs)
    os.close(ours)
    file.write(LINE)
    assert file._lost == 1
    os.close(theirs)


def test_a_file_takes_whole_texts(tmp_path):
    with open(tmp_path / "log", "wb") as opened:
        Unblocked(opened.fileno()).write(LINE * 1000)
    assert (tmp_path / "log").read_bytes() == LINE * 1000


def test_print_writes_a_line_at_once_and_a_closed_stderr_takes_anything():
    script = "import sys; from gomp.service import stderr; stderr.never_wait_for_a_reader(); print('a\\udc80', 1, file=sys.stderr)"
    opened = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert opened.stderr == b"a\\udc80 1\n"
    closed = subprocess.run(["sh", "-c", f'exec "$0" -c "{script}" 2>&-', sys.executable], capture_output=True, check=True)  # fmt: skip
    assert closed.stdout == b""


def test_a_coordinator_whose_stderr_nobody_reads_collects_on_and_ends(environment, tmp_path, compiled_kernels):
    config = tmp_path / "service.toml"
    config.write_text(
        'name = "unread"\nprocs = 1\nmetrics_port = 0\nmax_heap = "256MiB"\n'
        '[[programs]]\nprogram = "churn"\nparameters = { live = 1000, ops = 100000000 }\n'
    )
    unread, full = os.pipe()
    fcntl.fcntl(full, fcntl.F_SETPIPE_SZ, ROOM)
    command = [sys.executable, "-m", "gomp", "serve", "--config", config, "--godebug", "gctrace=1,gcpacertrace=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True, env=environment) as service:
        try:
            where = service.stdout.readline().rpartition(" ")[2].strip()
            deadline = time.monotonic() + START_S
            while cycles(where) < CYCLES:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            began = time.monotonic()
            service.send_signal(signal.SIGTERM)
            assert (service.wait(timeout=30), time.monotonic() - began < END_S) == (0, True)
        finally:
            service.kill()
            os.close(unread)
            os.close(full)


def cycles(where):
    text = httpx.get(f"{where}metrics", timeout=10).text
    return float(re.search(r"^go_gc_cycles_total_gc_cycles_total (\S+)$", text, re.MULTILINE)[1])
