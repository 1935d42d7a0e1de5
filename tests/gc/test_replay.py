"""The pacer, the limiter and the pace of scavenging, operation by operation, against what the real Go did."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomp.core import COMPILED
from gomp.runtime.replay import Difference, compare, replay

DATA = Path(__file__).parents[1] / "data"

if not COMPILED:
    pytest.skip("thousands of operations: for compiled kernels", allow_module_level=True)


def check(path, kind):
    n = 0
    for operation, found in replay(path, kind):
        try:
            compare(operation.expected, found)
        except Difference as difference:
            pytest.fail(f"{path.name}, line {operation.line}, {operation.op}: {difference}")
        n += 1
    assert n > 2


SCENARIOS = {
    "Steady": "the heap goal is met when nothing changes",
    "SteadyBigStacks": "big stacks count as work and towards the goal",
    "SteadyBigGlobals": "big globals count as work and towards the goal",
    "StepAlloc": "a program that allocates faster from one cycle to the next is followed",
    "HeavyStepAlloc": "and one that allocates much faster",
    "StepScannableFrac": "so is a heap that suddenly has more to scan",
    "HighGOGC": "a high GOGC leaves a long runway",
    "OscAlloc": "a rate that goes up and down is met",
    "JitterAlloc": "a rate with noise is met",
    "HeavyJitterAlloc": "and one with much noise",
    "SmallHeapSlowAlloc": "a small heap with a slow program starts its cycles late",
    "MediumHeapSlowAlloc": "so does one of medium size",
    "LargeHeapSlowAlloc": "and a large one, four MiB before its goal at most",
    "SteadyMemoryLimit": "a limit that is far away changes nothing",
    "SteadyMemoryLimitNoGCPercent": "without GOGC the limit alone sets the goal",
    "ExceedMemoryLimit": "beyond the limit cycles follow one another",
    "ExceedMemoryLimitNoGCPercent": "without GOGC too",
    "MaintainMemoryLimit": "a program that would pass the limit is kept below it",
    "MaintainMemoryLimitNoGCPercent": "without GOGC too",
    "X01_limit_changes_between_cycles": "a limit that changes counts from the next decision on",
    "X02_gogc_changes_mid_cycle": "a GOGC that changes while the heap is marked changes the assists at once",
    "X03_idle_marking_periodic_late_trigger": "marking by idle processors counts in what marking costs",
    "X04_nonheap_and_free_memory": "memory that is no heap leaves less for the heap",
    "X05_gogc_off_no_limit_forced": "without GOGC and limit there is a goal nobody reaches",
}


@pytest.mark.parametrize("name", SCENARIOS, ids=lambda name: SCENARIOS[name].replace(" ", "-"))
def test_pacer(name):
    check(DATA / "pacer" / f"{name}.jsonl.gz", "pacer")


def test_there_is_a_sentence_for_every_tape():
    assert {path.name.removesuffix(".jsonl.gz") for path in (DATA / "pacer").glob("*.gz")} == set(SCENARIOS)


LIMITER = {
    "TestGCCPULimiter": "a full bucket limits until it drains",
    "L01_thrash_2p": "a heap that cannot fit is limited to half of two processors",
    "L02_mixed_idle_4p": "idle time neither fills nor drains, and a clock that goes back is ignored",
    "L03_resize": "the bucket follows the number of processors",
}


@pytest.mark.parametrize("name", LIMITER, ids=lambda name: LIMITER[name].replace(" ", "-"))
def test_limiter(name):
    check(DATA / "limiter" / f"{name}.jsonl.gz", "limiter")


def test_each_row_of_the_grid_of_goals_is_met():
    check(DATA / "goals" / "goals.jsonl", "goals")


def test_so_many_workers_mark_on_so_many_processors():
    check(DATA / "workers" / "workers.json", "workers")


SCAVENGER = {
    "goals": "what may be retained follows from the next goal and from the limit",
    "pi": "the controller saturates, winds back and recovers from overflow",
    "loop_1p": "a hundredth of one processor goes into giving memory back",
    "loop_2p": "and a hundredth of one of two",
}


@pytest.mark.parametrize("name", SCAVENGER, ids=lambda name: SCAVENGER[name].replace(" ", "-"))
def test_scavenger(name):
    check(DATA / "scavenger" / f"{name}.jsonl", "scavenger")
