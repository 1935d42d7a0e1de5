"""``memory_limit = "auto"``: what is set, and what the log says of it."""

import errno
import logging
import os
from pathlib import Path

import pytest

from gomp.cgroup import MemoryCgroup
from gomp.config import NO_LIMIT
from gomp.runtime import autolimit
from gomp.runtime.autolimit import AutoLimit

MIB = 1 << 20


class Cgroup:
    """A cgroup v2 on disk, whose limit and statistics may change."""

    def __init__(self, directory):
        self.directory = directory / "mount"
        self.directory.mkdir()
        (directory / "cgroup").write_text("0::/\n")
        (self.directory / "cgroup.controllers").write_text("memory\n")
        self.memory = MemoryCgroup.of_this_process(directory, self.directory)
        self.write(None, 0)
        self.memory = MemoryCgroup.of_this_process(directory, self.directory)

    def write(self, limit, taken):
        (self.directory / "memory.max").write_text("max" if limit is None else f"{limit * MIB}")
        (self.directory / "memory.stat").write_text(f"anon {taken * MIB}\nkernel 0\n")


@pytest.fixture
def cgroup(tmp_path):
    return Cgroup(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(autolimit, "time", clock)
    return clock


def test_nine_tenths_less_what_the_interpreters_take(cgroup, clock, caplog):
    caplog.set_level(logging.INFO)
    cgroup.write(256, 60)
    assert AutoLimit(cgroup.memory, 0.9).look() == int(0.9 * 256 * MIB) - 60 * MIB
    (line,) = caplog.messages
    assert line == (
        "memory_limit is 170.4 MiB: auto is 0.9 of the cgroup's 256.0 MiB, less 60.0 MiB that its processes need for themselves"
    )


def test_without_a_cgroups_limit_there_is_none(cgroup, clock, caplog):
    caplog.set_level(logging.INFO)
    assert AutoLimit(cgroup.memory, 0.9).look() == NO_LIMIT
    assert "no cgroup limits" in caplog.text


def test_too_little_is_no_limit_and_a_warning_that_names_the_fix(cgroup, clock, caplog):
    cgroup.write(128, 60)
    assert AutoLimit(cgroup.memory, 0.9).look() == NO_LIMIT
    assert "leaves less than 64 MiB; give the container 138 MiB or more, or set memory_limit" in caplog.text


def test_a_new_limit_is_followed_within_a_second(cgroup, clock):
    cgroup.write(256, 60)
    auto = AutoLimit(cgroup.memory, 0.9)
    auto.look()
    cgroup.write(512, 60)
    assert auto.look() is None
    clock.now += autolimit.PERIOD_S
    assert auto.look() == int(0.9 * 512 * MIB) - 60 * MIB
    clock.now += autolimit.PERIOD_S
    assert auto.look() is None


def test_a_limit_that_cannot_be_read_any_more_stands(cgroup, clock, monkeypatch):
    cgroup.write(256, 60)
    auto = AutoLimit(cgroup.memory, 0.9)
    auto.look()

    def no_descriptor(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as exhausted:
        exhausted.setattr("gomp.cgroup._contents", no_descriptor)
        exhausted.setattr(Path, "read_text", no_descriptor)
        clock.now += autolimit.PERIOD_S
        assert auto.look() is None
    cgroup.write(None, 60)
    clock.now += autolimit.PERIOD_S
    assert auto.look() == NO_LIMIT, "it has been lifted"


def test_interpreters_that_grow_lower_it_unless_it_is_a_trifle(cgroup, clock):
    cgroup.write(256, 60)
    auto = AutoLimit(cgroup.memory, 0.9)
    auto.look()
    for taken, limit in ((62, None), (69, int(0.9 * 256 * MIB) - 69 * MIB)):
        cgroup.write(256, taken)
        clock.now += autolimit.PERIOD_S
        assert auto.look() == limit


def test_where_the_cgroup_does_not_tell_what_is_charged_at_the_start_counts(cgroup, clock, caplog):
    cgroup.write(256, 60)
    (cgroup.directory / "memory.stat").unlink()
    (cgroup.directory / "memory.current").write_text(f"{80 * MIB}")
    auto = AutoLimit(cgroup.memory, 0.9)
    assert auto.look() == int(0.9 * 256 * MIB) - 80 * MIB
    (cgroup.directory / "memory.current").write_text(f"{160 * MIB}")
    clock.now += autolimit.PERIOD_S
    assert auto.look() is None
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "memory.stat cannot be read: 80.0 MiB, what is charged now" in warning


def test_what_processes_are_about_to_take_counts_before_they_do(cgroup, clock, caplog):
    caplog.set_level(logging.INFO)
    cgroup.write(256, 90)
    auto = AutoLimit(cgroup.memory, 0.9)
    auto.expect(40 * MIB)
    cgroup.write(256, 100)
    assert auto.look() == int(0.9 * 256 * MIB) - 130 * MIB
    assert "less 130.0 MiB that its processes need for themselves" in caplog.text
    clock.now += autolimit.PERIOD_S
    assert auto.look() is None, "they are on their way"


def test_what_is_taken_for_a_moment_lowers_the_limit_once_and_not_at_every_look(cgroup, clock):
    auto = AutoLimit(cgroup.memory, 0.9)
    decided = []
    for taken in (100, 130, 100, 130, 100, *(100 for _ in range(45))):
        cgroup.write(256, taken)
        decided.append(auto.look())
        clock.now += autolimit.PERIOD_S
    high, low = (int(0.9 * 256 * MIB) - taken * MIB for taken in (100, 130))
    assert [limit for limit in decided if limit is not None] == [high, low, high]


def test_interpreters_that_leave_too_little_leave_the_floor_to_a_service_that_had_more(cgroup, clock, caplog):
    auto = AutoLimit(cgroup.memory, 0.9)
    cgroup.write(256, 100)
    auto.look()
    cgroup.write(256, 200)
    clock.now += autolimit.PERIOD_S
    assert auto.look() == autolimit.FLOOR
    assert caplog.text.count("memory_limit is 64.0 MiB: ") == 1
