"""All goroutines are asleep: who waits in a program is told, if nobody could end that; and in scripts where somebody could, nobody is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "deadlock_script.py"
FIRST = r"Deadlock all goroutines are asleep - deadlock! \|  \| "
FRAME = r"goroutine \d+ \[chan receive\]: Receives\.step at .*deadlock_script\.py:\d+"


def run(what: str, procs: int = 2, timeout: float = 120) -> tuple[list[str], str]:
    """What the script prints, and what it logs."""
    done = subprocess.run(
        [sys.executable, SCRIPT, what, str(procs)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=SCRIPT.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def waits(reason: str, where: str) -> str:
    return rf"goroutine \d+ \[{re.escape(reason)}\]: {where}"


@pytest.mark.slow
def test_who_waits_for_ever_is_told_with_what_all_others_wait_for():
    lines, _ = run("for_ever")
    here = r"outcome at .*deadlock_script\.py:\d+"
    expected = (
        f"{FIRST}{FRAME} \\| {waits('chan receive', here)}",
        "got None",
        FIRST + waits("chan send", here),
        FIRST + waits("sync.Mutex.Lock", here),
        FIRST + waits("sync.WaitGroup.Wait", here),
        FIRST + waits("select (no cases)", here),
        FIRST + waits("select", here),
        FIRST + waits("chan receive", r"receive at .*"),
        FIRST + FRAME,
        FIRST + waits("sync.Mutex.Lock", r"lock_twice at .*"),
        rf"{FIRST}.*{waits('end of a goroutine', r'awaits_another at .*')}.*{waits('chan receive', r'receives_here at .*')}",
        "verified .*",
    )
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


@pytest.mark.usefixtures("compiled_kernels")
def test_where_somebody_could_end_the_wait_nobody_is_told():
    """A timeout, a program that sleeps, a thread, a handler of a signal."""
    lines, _ = run("somebody_acts")
    assert lines[:3] == ["TimeoutError", "got 1", "got 1"]
    assert lines[3].startswith("ClosedChannel")
    assert re.match(FIRST, lines[4])
    assert re.fullmatch(f"{FIRST}{FRAME} \\| {FRAME}", lines[5])
    assert re.match(FIRST, lines[6])
    assert "receives_in_python at" in lines[6]
    assert len(lines) == 7


@pytest.mark.slow
@pytest.mark.parametrize("procs", [1, 3])
def test_programs_that_wait_for_each_other_are_all_told(procs):
    """If one of them acts then before another has heard of it, that one has got what it waited for."""
    lines, _ = run("all_programs", procs)
    assert all(re.match(rf"{FIRST}|ClosedChannel", line) for line in lines[:3])
    assert sum(line.startswith("Deadlock") for line in lines[:3]) >= 2
    assert lines[3].startswith("0 verified")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["unsure", "named"])
def test_where_it_is_not_sure_the_log_says_so_once(what):
    lines, log = run(what)
    assert lines == ["got 1", "TimeoutError"]
    assert log.count("it may be no deadlock") == 1
    why = (
        r"a thread may act that waits for something else \(late\)"
        if what == "unsure"
        else "others may connect to a runtime with a name, named"
    )
    assert re.search(
        rf"all goroutines wait, and nothing runs; it may be no deadlock, for {why}\n.*{waits('chan receive', 'outcome at')}",
        log,
    )


@pytest.mark.slow
def test_looks_all_the_time_find_nothing_until_it_is_so():
    """With a P for each of the programs: one that waits in the middle of another's wait would hold that up."""
    lines, _ = run("ring", 4)
    assert re.match(FIRST, lines[0])
    assert lines[1].startswith("[True, True, True, True] verified")
