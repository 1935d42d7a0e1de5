"""The memory profile: which code has made the objects that are in use, and all that there have been (runtime.MemProfile).

Objects are sampled, one for each half a MiB on average; what is said of all is worked out from those (:func:`scaled`). It shows the moment at which
the last marking ended whose sweep is over, so it is up to two cycles old; before the first cycle, what has been made so far. Read from shared memory
by any process that has it mapped, at any time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gomp.core.shm.atomics import load_acquire
from gomp.core.shm.records import (
    MEMPROFILE,
    MEMPROFILE_XFLUSHES,
    MEMPROFILE_XNBUCKETS,
    bucket_dtype,
    memprofile_dtype,
    new_view,
    view,
)
from gomp.core.shm.seqlock import load_after_reads
from gomp.errors import GompError
from gomp.runtime.goroutineprofile import addresses
from gomp.runtime.memstats import MemStats
from gomp.runtime.recordaddr import bucket_addr
from gomp.runtime.sitetable import Site, frame_at

_OURS = (f"{Path(__file__).parents[1]}/", "<frozen runpy>")
_P = str(Path(__file__).with_name("p.py"))  # around it are the frames of the coordinator, from which a P was forked
_NAP_S, _PATIENCE_S = 0.0001, 1.0


@dataclass(frozen=True)
class MemProfileRecord:
    """Objects of one size that were made with one stack, as far as they were sampled; and what follows from that for all of them."""

    object_bytes: int  # that each takes
    allocs: int  # sampled, ever
    frees: int  # of those, how many have died
    frames: tuple[Site, ...]  # where they were made, the innermost first
    rate: int  # bytes for each sampled object

    @property
    def in_use(self) -> int:
        """Sampled objects that have not died."""
        return self.allocs - self.frees

    @property
    def alloc_objects(self) -> int:
        """How many objects were made, ever, sampled or not: an estimate, as all that follow."""
        return scaled(self.allocs, self.object_bytes, self.rate)[0]

    @property
    def alloc_bytes(self) -> int:
        return scaled(self.allocs, self.object_bytes, self.rate)[1]

    @property
    def in_use_objects(self) -> int:
        return scaled(self.in_use, self.object_bytes, self.rate)[0]

    @property
    def in_use_bytes(self) -> int:
        return scaled(self.in_use, self.object_bytes, self.rate)[1]


def rate() -> int:
    """Bytes for each sampled object on average: 1 samples all, 0 none."""
    return int(view(memprofile_dtype, MEMPROFILE)[0].rate)


def read() -> list[MemProfileRecord]:
    """What was sampled, those of which most bytes are in use first."""
    buckets = _copy()
    if not (buckets["published_allocs"].any() or buckets["published_frees"].any()):  # there was no cycle
        allocs, frees = buckets["allocs"].sum(axis=1), buckets["frees"].sum(axis=1)
    else:
        allocs, frees = buckets["published_allocs"], buckets["published_frees"]
    names: dict[tuple[int, int], Site] = {}
    counts: dict[tuple[int, tuple[Site, ...]], tuple[int, int]] = {}
    for bucket, made, died in zip(buckets, allocs.tolist(), frees.tolist(), strict=True):
        if made or died:
            key = int(bucket["object_bytes"]), _shown(_frames(bucket, names))
            before = counts.get(key, (0, 0))
            counts[key] = before[0] + made, before[1] + died
    per = rate()
    found = [MemProfileRecord(size, made, died, frames, per) for (size, frames), (made, died) in counts.items()]
    return sorted(found, key=lambda r: r.in_use_bytes, reverse=True)


def since(before: list[MemProfileRecord], now: list[MemProfileRecord]) -> list[MemProfileRecord]:
    """What ``now`` has more than the profile ``before``; less, where numbers are below 0."""
    old = {(r.object_bytes, r.frames): r for r in before}
    found = []
    for r in now:
        was = old.get((r.object_bytes, r.frames))
        allocs, frees = (r.allocs - was.allocs, r.frees - was.frees) if was else (r.allocs, r.frees)
        if allocs or frees:
            found.append(replace(r, allocs=allocs, frees=frees))
    return found


def scaled(count: int, object_bytes: int, rate: int) -> tuple[int, int]:
    """How many objects, and bytes, there are likely to be where ``count`` were sampled at that rate (protomem.go, scaleHeapSample)."""
    if count == 0 or object_bytes == 0:
        return 0, 0
    scale = 1.0 if rate <= 1 else 1 / (1 - math.exp(-object_bytes / rate))
    return int(count * scale), int(count * object_bytes * scale)


def _copy() -> Any:
    """The buckets as they were at one moment, as far as what is published goes.

    Raises GompError if the coordinator stays in the middle of publishing.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        before = load_acquire(MEMPROFILE_XFLUSHES)
        n = int(load_acquire(MEMPROFILE_XNBUCKETS))
        buckets = new_view(bucket_dtype, bucket_addr(1), n).copy() if n else np.zeros(0, bucket_dtype)
        if before % 2 == 0 and load_after_reads(MEMPROFILE_XFLUSHES) == before:
            return buckets
        time.sleep(_NAP_S)
    raise GompError("the coordinator does not go on in the middle of publishing a profile: is it stopped?")


def _frames(bucket: Any, names: dict[tuple[int, int], Site]) -> list[Site]:
    found = []
    words = bucket["frames"].tolist()
    for at in range(0, 2 * int(bucket["nframes"]), 2):
        key, line = words[at : at + 2]
        if (key, line) not in names:
            names[key, line] = frame_at(key, line)
        found.append(names[key, line])
    # The step of a frame stands at the action before, where the compiler knows better.
    if len(found) > 1 and (found[0].function, found[0].file) == (found[1].function, found[1].file) and words[1] < 0:
        del found[1]
    return found


def _shown(frames: list[Site]) -> tuple[Site, ...]:
    """Without those of gomp itself, as Go leaves out the runtime's, and what has started the process; unless there are no others."""
    first = next((i for i, frame in enumerate(frames) if frame.file == _P), len(frames))
    return tuple(f for f in frames[:first] if not f.file.startswith(_OURS)) or tuple(frames)


def summary(found: list[MemProfileRecord], stats: MemStats) -> str:
    """As Go's heap profile with debug=1: what was sampled, not scaled, and Go's MemStats."""
    in_use = sum(r.in_use for r in found), sum(r.in_use * r.object_bytes for r in found)
    allocs = sum(r.allocs for r in found), sum(r.allocs * r.object_bytes for r in found)
    # Twice the rate, as the first profilers had it (pprof.go, writeHeapInternal).
    parts = [f"heap profile: {in_use[0]}: {in_use[1]} [{allocs[0]}: {allocs[1]}] @ heap/{2 * rate()}\n"]
    places = addresses(record.frames for record in found)
    for r in found:
        at = " ".join(f"{places[frame]:#x}" for frame in r.frames)
        parts.append(
            f"{r.in_use}: {r.in_use * r.object_bytes} [{r.allocs}: {r.allocs * r.object_bytes}] @ {at}\n"
            + "".join(f"#\t{places[frame]:#x}\t{frame.function or '?'}\t{frame}\n" for frame in r.frames)
            + "\n"
        )
    parts += ["\n# runtime.MemStats\n", *(f"# {name} = {value}\n" for name, value in _go_stats(stats).items())]
    return "".join(parts)


def _go_stats(s: MemStats) -> dict[str, object]:
    return {
        "Alloc": s.alloc,
        "TotalAlloc": s.total_alloc,
        "Sys": s.sys,
        "Mallocs": s.mallocs,
        "Frees": s.frees,
        "HeapAlloc": s.heap_alloc,
        "HeapSys": s.heap_sys,
        "HeapIdle": s.heap_idle,
        "HeapInuse": s.heap_inuse,
        "HeapReleased": s.heap_released,
        "HeapObjects": s.heap_objects,
        "Stack": f"{s.stack_inuse} / {s.stack_sys}",
        "MSpan": f"{s.mspan_inuse} / {s.mspan_sys}",
        "MCache": f"{s.mcache_inuse} / {s.mcache_sys}",
        "BuckHashSys": s.buck_hash_sys,
        "GCSys": s.gc_sys,
        "OtherSys": s.other_sys,
        "NextGC": s.next_gc,
        "LastGC": s.last_gc,
        "NumGC": s.num_gc,
        "NumForcedGC": s.num_forced_gc,
        "GCCPUFraction": s.gc_cpu_fraction,
    }
