"""What the return of memory costs, and how it looks: ``python -m benchmarks.returning cost`` and ``… picture``.

*cost*: the live set goes up to 192 MiB and down to 12, tooth after tooth, on two Ps, and garbage is made all the time. So each tooth's memory is
returned while the set is small, and committed again when it grows. The same seconds with the background scavenger and without it
(``GODEBUG=scavengeoff=1``), in turn; what is compared is the number of objects that were made.

*picture*: a runtime in a memory cgroup of its own peaks at 400 MiB, collects, and is idle; the cgroup's limit comes down later. What the runtime
counts as released, and what the cgroup is charged, over time; eagerly and lazily.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import gomp

MIB = 1 << 20
PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "returning.png"
PROCS = 2
HIGH, LOW = 96 * MIB, 6 * MIB  # of each P
TOOTH_S = 4.0
OBJECT = 1024
_GROWS = 0.4  # of a tooth, in which the live set grows; and as long it is small

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


def teeth(number: int, seconds: float) -> int:
    """Run for so long; how many objects were made."""
    table = gomp.array(gomp.Array[int], HIGH // OBJECT)
    TABLES[number].set(table)
    live, made, began = 0, 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        at = now % TOOTH_S / TOOTH_S
        wanted = LOW + (HIGH - LOW) * min(at / _GROWS, 1.0) if at < 1 - _GROWS else LOW
        n = int(wanted) // OBJECT
        if n > live:
            made += min(n - live, 2000)
            live = put(table, live, min(n, live + 2000))
        elif n < live:
            live = drop(table, n, live)
        made += litter(500)
    TABLES[number].set(None)
    return made


# --- cost -------------------------------------------------------------------------------------------------------------


def throughput(is_on: bool, seconds: float) -> dict[str, float]:
    """One run: objects made in a second, and what was returned and at what expense."""
    os.environ["GODEBUG"] = "" if is_on else "scavengeoff=1"
    with gomp.Runtime(procs=PROCS, max_heap="2GiB") as rt:
        for g in [rt.go(teeth, i, 0.1) for i in range(PROCS)]:
            g.wait()
        before = rt.stats()
        made = sum(g.wait() for g in [rt.go(teeth, i, seconds) for i in range(PROCS)])
        after = rt.stats()
    s, t = before.scavenge, after.scavenge
    return {
        "objects_per_s": made / seconds,
        "returned_mib": (t.background_bytes + t.eager_bytes - s.background_bytes - s.eager_bytes) / MIB,
        "background_s": t.background_s - s.background_s,
        "eager_s": t.eager_s - s.eager_s,
        "cycles": after.num_gc - before.num_gc,
        "gc_share": (after.gc_cpu_s - before.gc_cpu_s) / (PROCS * (after.uptime_s - before.uptime_s)),
    }


def measure_cost(pairs: int, seconds: float) -> None:
    """Pairs of runs, and the median of their quotients."""
    runs = [(throughput(True, seconds), throughput(False, seconds)) for _ in range(pairs)]
    for on, off in runs:
        print(json.dumps({"on": on, "off": off}))
    ratios = [on["objects_per_s"] / off["objects_per_s"] for on, off in runs]
    print(f"| {'':9} | objects a second | returned | scavenger's time | cycles | GC CPU |\n|---|---|---|---|---|---|")
    for name, of in (("scavenger", [on for on, _ in runs]), ("none", [off for _, off in runs])):
        m = {key: statistics.median(run[key] for run in of) for key in of[0]}
        print(
            f"| {name} | {m['objects_per_s']:,.0f} | {m['returned_mib']:.0f} MiB | {m['background_s'] + m['eager_s']:.2f} s "
            f"| {m['cycles']:.0f} | {m['gc_share']:.1%} |"
        )
    print(f"with it / without: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


# --- picture ----------------------------------------------------------------------------------------------------------


@gomp.compiled
def fill(words: int) -> int:
    """An array, each page of it written."""
    array = gomp.array(int, words)
    for at in range(0, words, 512):
        array[at] = 1
    return words


PEAK = 400 * MIB
PEAK_AT, LIMIT_AT, END_AT = 1.0, 8.0, 12.0
ROOMY = 1500 * MIB


def _sample(godebug: str) -> list[tuple[float, float, float]]:
    """(seconds, MiB released as the runtime counts, MiB charged to the cgroup)"""
    from gomp.runtime import memstats
    from gomp.stress.cgroup import own_cgroup

    os.environ["GODEBUG"] = godebug
    samples = []
    with own_cgroup(ROOMY) as cgroup:
        with gomp.Runtime(procs=1, max_heap="1GiB") as rt:
            for pid in _processes_of(rt):
                (cgroup.directory / "cgroup.procs").write_text(str(pid))
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


def _peak(rt: gomp.Runtime, cgroup: Any) -> None:
    rt.run(fill, PEAK // 8)
    rt.gc()
    rt.gc()


def _lower(rt: gomp.Runtime, cgroup: Any) -> None:
    """To what leaves 16 MiB."""
    cgroup.set_limit(max(cgroup.level.usage() + 16 * MIB, PEAK))


def _processes_of(rt: gomp.Runtime) -> list[int]:
    return [rt._process.pid, *(p.pid for p in rt.stats().ps[:PROCS] if p.pid and p.pid != os.getpid())]


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
        released_before = samples[0][1]
        seconds = [s for s, _, _ in samples]
        axis.plot(seconds, [c for _, _, c in samples], label="charged to the cgroup")
        axis.plot(seconds, [r - released_before for _, r, _ in samples], "--", label="HeapReleased, since the start")
        axis.axvline(LIMIT_AT, color="0.6", linewidth=0.8)
        axis.text(LIMIT_AT, 20, " the limit comes down", fontsize=7, color="0.4")
        axis.set(title=title, xlabel="seconds")
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axes[0].set_ylabel("MiB")
    axes[0].legend(fontsize=8, loc="center right")
    figure.savefig(PICTURE, dpi=90)
    print(f"{PICTURE}: {PICTURE.stat().st_size >> 10} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the return of memory costs, and how it looks.")
    parser.add_argument("what", choices=("cost", "picture"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0)
    arguments = parser.parse_args()
    if arguments.what == "cost":
        measure_cost(arguments.pairs, arguments.seconds)
    else:
        draw_picture()


if __name__ == "__main__":
    main()
