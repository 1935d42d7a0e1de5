"""What the return of memory costs, and how it looks: ``python -m benchmarks.returning cost`` and ``… picture``.

*cost*: the live set goes down from 192 MiB to 12 and up again, tooth after tooth, on two Ps, and garbage is made all the time. So each tooth's
memory is returned while the set is small, and committed again when it grows. The same work with the background scavenger and without it, in turn.

*picture*: a runtime in a memory cgroup of its own peaks at 400 MiB, collects, and is idle; the cgroup's limit comes down later. What the runtime
counts as released, and what the cgroup is charged, over time; eagerly and lazily.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import gomp
from gomp.core.shm.records import RUNTIME, runtime_dtype, view
from gomp.runtime import memstats
from gomp.stress.cgroup import OwnCgroup, own_cgroup

MIB = 1 << 20
PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "returning.png"
PROCS = 2
HIGH, LOW = 96 * MIB, 6 * MIB  # of each P
OBJECT = 1024
OBJECTS_PER_TOOTH = 2_400_000  # garbage, half of it while the live set grows: a second or two
_STEPS = 40

TABLES = [gomp.Global(f"returning.{i}", gomp.Array[gomp.Array[int]]) for i in range(PROCS)]


@gomp.compiled
def put(table: gomp.Array[gomp.Array[int]], first: int, end: int) -> int:
    """Objects into these places."""
    for i in range(first, end):
        table[i] = gomp.array(int, OBJECT // 8 - 1)
    return end


@gomp.compiled
def drop(table: gomp.Array[gomp.Array[int]], first: int, end: int) -> int:
    """Nothing in these places any more."""
    for i in range(first, end):
        table[i] = None
    return first


@gomp.compiled
def litter(n: int) -> int:
    """So many objects that nobody keeps."""
    for _ in range(n):
        gomp.array(int, OBJECT // 8 - 1)
    return n


def stand_up(number: int) -> None:
    """The table, with the live set at its peak."""
    table = gomp.array(gomp.Array[int], HIGH // OBJECT)
    TABLES[number].set(table)
    litter(1)
    put(table, drop(table, 0, put(table, 0, LOW // OBJECT)), HIGH // OBJECT)  # compiled before it is timed


def tooth(number: int) -> float:
    """From the peak down, garbage there, and up again with as much garbage; the CPU time that it took here."""
    table, began = TABLES[number].get(), time.process_time()
    live = drop(table, LOW // OBJECT, HIGH // OBJECT)
    for _ in range(_STEPS):
        litter(OBJECTS_PER_TOOTH // 2 // _STEPS)
    for step in range(1, _STEPS + 1):
        live = put(table, live, (LOW + (HIGH - LOW) * step // _STEPS) // OBJECT)
        litter(OBJECTS_PER_TOOTH // 2 // _STEPS)
    return time.process_time() - began


# --- cost -------------------------------------------------------------------------------------------------------------


def measure_cost(pairs: int) -> None:
    """Pairs of teeth in one runtime, one with the background scavenger and one without it, in turn; the quotients of what they took.

    A tooth begins and ends at the peak: so what is returned in it is committed again in it. The CPU time is that of the Ps and of the coordinator,
    which returns in the background: so it is right on a machine that does other things too.
    """
    with gomp.Runtime(procs=PROCS, max_heap="2GiB") as rt:
        for g in [rt.go(stand_up, i) for i in range(PROCS)]:
            g.wait()
        _tooth(rt, True)
        ratios: list[float] = []
        for i in range(pairs):
            order = (True, False) if i % 2 == 0 else (False, True)
            cpu_s = {is_on: _tooth(rt, is_on) for is_on in order}
            ratios.append(cpu_s[False] / cpu_s[True])
        s = rt.stats().scavenge
    error = statistics.stdev(ratios) / pairs**0.5
    print(
        f"{pairs} pairs of teeth, of each {s.background_bytes / MIB / pairs:.0f} MiB returned, in {1000 * s.background_s / pairs:.0f} ms."
    )
    print(
        f"With the scavenger a CPU second does {statistics.mean(ratios):.3f} ± {error:.3f} times as much, median {statistics.median(ratios):.3f}."
    )


def _tooth(rt: gomp.Runtime, is_on: bool) -> float:
    """CPU seconds of one."""
    view(runtime_dtype, RUNTIME)[
        0
    ].keep_free = not is_on  # heeded at the end of each cycle, of which a tooth has dozens
    before = _cpu_s(rt._process.pid)
    took = sum(g.wait() for g in [rt.go(tooth, i) for i in range(PROCS)])
    return took + _cpu_s(rt._process.pid) - before


def _cpu_s(pid: int) -> float:
    ns = Path(f"/proc/{pid}/schedstat").read_text().split()[0]
    return int(ns) / 1e9


# --- picture ----------------------------------------------------------------------------------------------------------


@gomp.compiled
def fill(words: int) -> int:
    """An array, each page of it written."""
    array = gomp.array(int, words)
    for at in range(0, words, 512):
        array[at] = 1
    return words


PEAK = 400 * MIB
PEAK_AT, LIMIT_AT, END_AT = 1.0, 7.0, 10.0
ROOMY = 1500 * MIB


def _sample(godebug: str) -> list[tuple[float, float, float]]:
    """(seconds, MiB released as the runtime counts, MiB charged to the cgroup) of a runtime that starts in one."""
    with own_cgroup(ROOMY) as cgroup, multiprocessing.get_context("fork").Pool(1, initializer=cgroup.enter) as pool:
        found = pool.apply(_run, (godebug, cgroup))
        pool.close()
        pool.join()
        return found


def _run(godebug: str, cgroup: OwnCgroup) -> list[tuple[float, float, float]]:
    os.environ["GODEBUG"] = godebug
    samples = []
    with gomp.Runtime(procs=2, max_heap="1GiB") as rt:
        rt.run(fill, 512)
        rt.gc()
        rt.gc()
        began, due = time.monotonic(), [(PEAK_AT, _peak), (LIMIT_AT, _lower)]
        while (now := time.monotonic() - began) < END_AT:
            samples.append((now, memstats.read().heap_released / MIB, cgroup.level.usage() / MIB))
            if due and now > due[0][0]:
                due.pop(0)[1](rt, cgroup)
            time.sleep(0.02)
        cgroup.set_limit(ROOMY)
    return samples


def _peak(rt: gomp.Runtime, cgroup: OwnCgroup) -> None:
    rt.run(fill, PEAK // 8)
    rt.gc()
    rt.gc()


def _lower(rt: gomp.Runtime, cgroup: OwnCgroup) -> None:
    """To what leaves 16 MiB."""
    usage = cgroup.level.usage()
    cgroup.set_limit(max((usage or 0) + 16 * MIB, PEAK))


def draw_picture() -> None:
    """Both modes, side by side."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, godebug, title in zip(
        axes, ("", "madvdontneed=0"), ("eager (default)", "lazy: GODEBUG=madvdontneed=0"), strict=True
    ):
        samples = _sample(godebug)
        _, released_before, charged_before = samples[0]
        seconds = [s for s, _, _ in samples]
        axis.plot(seconds, [c - charged_before for _, _, c in samples], label="charged to the cgroup")
        axis.plot(seconds, [r - released_before for _, r, _ in samples], "--", label="HeapReleased")
        axis.axvline(LIMIT_AT, color="0.6", linewidth=0.8)
        axis.text(LIMIT_AT, 20, " the limit comes down", fontsize=7, color="0.4")
        axis.set(title=title, xlabel="seconds")
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axes[0].set_ylabel("MiB more than before the peak")
    axes[0].legend(fontsize=8, loc="center right")
    figure.savefig(PICTURE, dpi=90)
    print(f"{PICTURE}: {PICTURE.stat().st_size >> 10} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the return of memory costs, and how it looks.")
    parser.add_argument("what", choices=("cost", "picture"))
    parser.add_argument("--pairs", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.what == "cost":
        measure_cost(arguments.pairs)
    else:
        draw_picture()


if __name__ == "__main__":
    main()
