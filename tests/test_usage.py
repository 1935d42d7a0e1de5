"""What the system says of processes, read from a tree like /proc."""

import errno
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from gomp.runtime.usage import Usage, UsageReader

TICKS = os.sysconf("SC_CLK_TCK")
NETSTAT = """TcpExt: SyncookiesSent SyncookiesRecv
TcpExt: 1 2
IpExt: InNoRoutes InOctets OutOctets
IpExt: 0 700 80
"""


class Proc:
    """The tree; ``have`` makes a process of it, or changes one."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "stat").write_text("cpu 1 2 3\nbtime 1000\n")

    def have(self, pid, utime=0, stime=0, waited=0, threads=1, start=0, size=4096, fds=3):
        words: list[object] = ["S"] + [0] * 40
        words[11:15] = utime * TICKS, stime * TICKS, waited * TICKS, 0
        words[17], words[19], words[20] = threads, start * TICKS, size
        place = self.directory / str(pid)
        (place / "net").mkdir(parents=True, exist_ok=True)
        (place / "fd").write_bytes(bytes(fds))  # a directory, but only its size is looked at
        (place / "net/netstat").write_text(NETSTAT)
        (place / "stat").write_text(f"{pid} (a) name (x) {' '.join(map(str, words))}\n")

    def lose(self, pid):
        (self.directory / str(pid) / "stat").unlink()


def limits(pid, which):
    return (100, 200) if which == resource.RLIMIT_NOFILE else (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


@pytest.fixture
def reader(proc):
    return UsageReader(proc.directory, limits)


def test_processes_are_added_up(proc, reader):
    proc.have(10, utime=1, stime=2, threads=1, start=50)
    proc.have(11, utime=4, threads=2, size=8192, fds=5)
    assert reader.read(10, [11, 12]) == Usage(
        cpu_s=7.0,
        open_fds=8,
        max_fds=200,
        virtual_bytes=12288,
        max_virtual_bytes=(1 << 64) - 1,
        threads=3,
        start_unix_s=1050.0,
        received_bytes=700,
        sent_bytes=80,
    )


def test_the_time_of_a_process_that_died_is_not_lost(proc, reader):
    proc.have(10, utime=1)
    proc.have(11, utime=4)
    assert reader.read(10, [11]).cpu_s == 5.0
    proc.lose(11)
    assert reader.read(10, [11]).cpu_s == 5.0, "nobody has waited for it yet"
    proc.have(10, utime=1, waited=4)
    proc.have(12, utime=2)
    assert reader.read(10, [12]).cpu_s == 7.0


def test_what_cannot_be_opened_is_as_it_was(proc, reader):
    proc.have(10)
    assert reader.read(10, []).received_bytes == 700
    (proc.directory / "10/net/netstat").unlink()
    found = reader.read(10, [])
    assert (found.received_bytes, found.sent_bytes, found.open_fds) == (700, 80, 3)


def test_without_descriptors_only_their_number_is_of_now(proc, reader, monkeypatch):
    proc.have(10, utime=1, fds=3)
    proc.have(11, utime=2, fds=4)
    before = reader.read(10, [11])
    proc.have(10, utime=5, fds=100)
    monkeypatch.setattr(Path, "read_text", no_descriptor)
    assert reader.read(10, [11]) == replace(before, open_fds=104)
    monkeypatch.undo()
    assert reader.read(10, [11]).cpu_s == 7.0


def no_descriptor(*_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_without_a_coordinator_there_is_nothing(proc, reader):
    assert reader.read(10, [11]) is None


def test_this_process_can_be_looked_at():
    found = UsageReader().read(os.getpid(), [])
    assert found.cpu_s > 0
    assert found.threads >= 1
    assert 0 < found.open_fds <= found.max_fds
    assert found.start_unix_s > 1e9
