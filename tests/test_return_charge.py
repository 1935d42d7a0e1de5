"""Memory goes back to the system: what a real cgroup is charged after a peak of 400 MiB, as it says itself."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from charged import MIB, Charged
from real_cgroup import make_cgroup

from gomp.core import COMPILED

pytestmark = pytest.mark.alone

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

PEAK = 400 * MIB
ROOMY = 1500 * MIB
# What a peak leaves beside the heap: span records and bitmaps for its pages, and interpreters that have grown meanwhile.
BESIDE = 24 * MIB
RECORDS = 16 * MIB  # of the pages of a second peak: where small objects lie in the way, the heap grows for it
GOAL = 5 * MIB  # ten percent above the smallest heap's
RESERVE = 16 * MIB  # of a cgroup's limit, that is never committed


@contextmanager
def charged(limit=ROOMY, godebug="", also_enter=None):
    with make_cgroup(limit) as cgroup:
        script = Charged(cgroup, godebug, also_enter)
        try:
            script.ask("gc")
            script.ask("gc")
            script.before = script.charge
            yield script
            script.end()
            assert cgroup.oom_kills() == 0
        finally:
            script.process.kill()
            script.process.wait()


@contextmanager
def cpu_accounts():
    """A cgroup that counts processor time; a function that says how many seconds it has counted, and one to enter it."""
    directory = Path(f"/sys/fs/cgroup/cpuacct/gomp-test-{os.getpid()}")
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup that counts processor time can be made: {error}")
    try:
        yield (
            lambda: int((directory / "cpuacct.usage").read_text()) / 1e9,
            lambda: (directory / "cgroup.procs").write_text(str(os.getpid())),
        )
    finally:
        deadline = time.monotonic() + 10
        while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        directory.rmdir()


@pytest.mark.slow
def test_eagerly_the_charge_falls_to_the_goals_in_30_seconds_for_a_hundredth_of_a_processor():
    """All that the runtime's processes take in these 30 seconds, idle loops included, is counted by the kernel."""
    with cpu_accounts() as (cpu_s, enter), charged(also_enter=enter) as script:
        script.ask(f"fill {PEAK}")
        assert script.charge >= script.before + PEAK
        script.ask("gc")
        script.ask("gc")
        began, cpu_before = time.monotonic(), cpu_s()
        fell_s = script.falls_below(script.before + BESIDE + GOAL, within_s=30)
        time.sleep(began + 30 - time.monotonic())
        share = (cpu_s() - cpu_before) / (time.monotonic() - began)
        print(f"the charge fell in {fell_s:.1f} s; {share:.2%} of a processor in 30 s")
        assert share <= 0.01
        script.ask("verify")


def test_free_os_memory_returns_it_at_once():
    with charged() as script:
        for _ in range(2):
            script.ask(f"fill {PEAK}")
            assert script.charge >= script.before + PEAK
            _, took_s = script.ask("free")
            left = script.charge  # when it has been answered
            print(f"answered in {took_s:.2f} s, {(left - script.before) / MIB:.1f} MiB more than before")
            assert left <= script.before + BESIDE
        script.ask("verify")


@pytest.mark.slow
def test_lazily_the_charge_stays_until_the_cgroup_has_little_left_and_falls_in_two_seconds():
    with charged(godebug="madvdontneed=0") as script:
        script.ask(f"fill {PEAK}")
        script.ask("gc")
        script.ask("gc")
        script.ask("free")
        time.sleep(2)
        stats, _ = script.ask("stats")
        assert stats["heap_released"] >= PEAK
        assert script.charge >= script.before + PEAK, "nobody needs it"
        limit = script.charge + 8 * MIB
        script.cgroup.set_limit(limit)
        fell_s = script.falls_below(limit * 7 // 8 + MIB, within_s=2)
        print(f"an eighth of {limit / MIB:.0f} MiB was free after {fell_s:.2f} s")
        script.ask("verify")


@pytest.mark.slow
def test_lazily_what_fits_without_what_lies_there_is_allocated_at_once_and_under_way():
    """The same sizes that eager return leaves room for: right after the limit fell, while the pages are punched out, and again."""
    fits = PEAK + 4 * MIB
    with charged(godebug="madvdontneed=0") as script:
        script.ask(f"fill {PEAK}")
        script.ask("free")
        script.cgroup.set_limit(script.before + BESIDE + RECORDS + RESERVE + fits)
        for wait_s in (0, 0.02, 0.1, 0.3, 0):
            time.sleep(wait_s)
            wrong, took_s = script.ask(f"fill {fits}")
            print(f"{fits / MIB:.0f} MiB in {took_s:.2f} s")
            assert wrong == 0, "what was released and comes back is zeroed"
            script.ask("free")
            script.ask("churn 64")
        script.ask("verify")
