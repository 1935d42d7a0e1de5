"""Real processes, killed at random: ``make kills``, or ``python -m tests.faults.harness --seconds 120``.

Traders (:mod:`workers.stress_trade`) on every P exchange sealed objects, so one that was freed too early or given out twice is noticed by whoever
looks at it next; every P also makes large objects, tiny ones, globals and garbage, works with maps, pools, texts, arrays, finalizers, cleanups, weak
pointers, and references that are sent from process to process, and runs goroutines that wait for each other (:mod:`tests.faults.crowd`). So does the
script, which is not killed (:mod:`tests.faults.script`).

A killer kills one P after another, at a random time or in a phase of the collector that it waits for. After each kill the heap is verified, and a
map holds what whoever died has left there, and nothing else; and nobody has died who was not killed. At the end each finalizer and cleanup of a
process that lives has run once, nothing is in transit, held or left, the coordinator has as few files open as at the start, and the heap's accounts
agree with what the file system says. A run that hangs is ended, and says where.

The plan of the kills follows from the seed, which is printed first; the moment at which each strikes is the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import math
import os
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, MHEAP, RUNTIME, SWEEP_SETS, mheap_dtype, p_dtype, runtime_dtype, view
from tests.faults import load, maps
from tests.faults.script import Script
from workers import stress_trade

PHASES = ("any", "any", "marking", "sweeping", "in a kernel")
PHASE_PATIENCE_S = 0.3
MEAN_GAP_S = 0.4
TRADE_S = 1.0  # how long a trader trades before another takes over, and calls of others find a P
LOOK_S = 0.01
WARM = 1 << 19  # the numbers of two traders that nobody kills
WARM_S = 120.0  # within which everything is compiled
UP_S = 30.0  # within which each P has a process again
SETTLED_S = 5.0  # within which the coordinator has closed what it has opened for a moment
HANGS_S = 300.0  # nothing between two looks at the heap takes so long


def p_record(idx: int) -> Any:
    return view(p_dtype, layout.p_addr(idx))[0]


@dataclass
class Report:
    """What a run has seen."""

    seed: int
    kills: int = 0
    verified: int = 0
    trades: int = 0
    answers: int = 0
    jobs: int = 0
    jobs_lost: int = 0
    finalized: int = 0
    cleaned: int = 0
    lost: int = 0  # finalizers and cleanups of those who were killed
    phases: dict[str, int] = field(default_factory=dict)
    repair_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "kills": self.kills,
            "verified": self.verified,
            "trades": self.trades,
            "answers": self.answers,
            "jobs": self.jobs,
            "jobs_lost": self.jobs_lost,
            "finalized": self.finalized,
            "cleaned": self.cleaned,
            "lost": self.lost,
            "phases": self.phases,
            "repair_ms_median": statistics.median(self.repair_ms) if self.repair_ms else None,
            "repair_ms_max": max(self.repair_ms, default=None),
        }


class Harness:
    """A runtime under load, and its killer."""

    def __init__(self, rt: gomp.Runtime, procs: int, seed: int, seconds: float) -> None:
        self.rt = rt
        self.procs = procs
        self.rng = random.Random(seed)
        self.seeds = random.Random(~seed)  # of the traders, of whom there are as many as the machine is fast
        self.seconds = seconds
        self.report = Report(seed)
        self.traders: dict[int, gomp.runtime.peer.Goroutine] = {}
        self.next_idx = 1
        stress_trade.MARKET.set(gomp.array(stress_trade.Letter, stress_trade.MAILBOXES))
        self.script = Script(rt, random.Random(seed))
        self.files = 0  # that the coordinator has open when it has all that it needs

    def warm_up(self) -> None:
        """Whoever is killed while it compiles leaves nothing compiled: on a fresh machine nobody would ever have anything else to do."""
        _, done = self.rt.run(load.work_a_shift, 0.1, WARM, 1)
        maps.settle(WARM, done)
        maps.settle(WARM + 1, self.rt.run(load.do_all_once, WARM + 1))
        until = time.monotonic() + WARM_S
        while not (self.script.crowd.answered and self.script.answered):
            if time.monotonic() > until:
                raise AssertionError(f"nobody has answered for {WARM_S:.0f} s")
            self.script.step()
        self.files = files_of_the_coordinator()

    def run(self, kills: int) -> Report:
        self.warm_up()
        until = time.monotonic() + self.seconds
        while self.report.kills < kills and time.monotonic() < until:
            self.work(min(self.rng.expovariate(1 / MEAN_GAP_S), 4 * MEAN_GAP_S))  # a P dies less than once a second
            self.kill_one(self.rng.randrange(self.procs), self.rng.choice(PHASES), self.rng.random())
            self.check()
        self.check()
        return self.report

    def work(self, seconds: float) -> None:
        """What the script does for so long while nobody is killed: one step at least."""
        until = time.monotonic() + seconds
        while True:
            self.start_traders()
            self.script.step()
            if time.monotonic() > until:
                return
            time.sleep(LOOK_S)

    def start_traders(self) -> None:
        """One for each P, in the place of those that have died. Anything else that ends one is a failure."""
        for idx, goroutine in list(self.traders.items()):
            with contextlib.suppress(TimeoutError):
                self.end_trader(idx, goroutine, 0.0)
        if not all(p_record(idx).xpid for idx in range(self.procs)):
            return  # one would go to a P that has another already
        while len(self.traders) < self.procs:
            self.traders[self.next_idx] = self.rt.go(
                load.work_a_shift, TRADE_S, self.next_idx, self.seeds.getrandbits(40)
            )
            self.next_idx += 1

    def end_trader(self, idx: int, goroutine: gomp.runtime.peer.Goroutine, timeout_s: float) -> None:
        done = None
        with contextlib.suppress(gomp.WorkerDied):
            trades, done = goroutine.wait(timeout_s)
            self.report.trades += trades
        del self.traders[idx]
        maps.settle(idx, done)

    def kill_one(self, idx: int, phase: str, fraction: float) -> None:
        if not self.wait_for(lambda: p_record(idx).xpid, UP_S):
            raise AssertionError(f"P{idx} has had no process for {UP_S:.0f} s")
        runtime = view(runtime_dtype, RUNTIME)[0]
        reached = {
            "any": lambda: True,
            "marking": lambda: runtime.xgcphase == GC_MARK,
            "sweeping": lambda: runtime.xgcphase != GC_MARK and runtime.xsweep_class < SWEEP_SETS,
            "in a kernel": lambda: p_record(idx).xstatus != 0,
        }[phase]
        hit = self.wait_for(reached, PHASE_PATIENCE_S)
        if phase != "in a kernel":
            until = time.perf_counter() + 0.002 * fraction
            while time.perf_counter() < until:
                pass
        pid = int(p_record(idx).xpid)
        if pid == 0:
            return
        os.kill(pid, signal.SIGKILL)
        self.report.kills += 1
        self.report.phases[phase] = self.report.phases.get(phase, 0) + bool(hit)
        if not self.wait_for(lambda: int(p_record(idx).xpid) != pid, UP_S):
            raise AssertionError(f"the death of P{idx} has not been noticed for {UP_S:.0f} s")

    @staticmethod
    def wait_for(condition: Any, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.0001)
        return True

    @property
    def killed_ps(self) -> int:
        """How many processes of Ps were killed: no others die."""
        return self.report.kills

    def check(self) -> None:
        """The heap is sound, and nobody has died by himself, or was killed for what he held up."""
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        self.rt.verify(3)
        stats = self.rt.stats()
        self.report.verified += 1
        self.report.repair_ms.append(1000 * stats.repairs.last_s)
        if (deaths := sum(p.deaths for p in stats.ps[: self.procs])) > self.killed_ps:
            raise AssertionError(f"{deaths} processes of Ps have died, and {self.killed_ps} were killed")
        if stats.heap_objects < 0:
            raise AssertionError(f"{stats.mallocs} objects made, {stats.frees} freed")

    def drain(self) -> None:
        """End the traders, drop everything, and see that nothing is left."""
        for idx, goroutine in list(self.traders.items()):
            self.end_trader(idx, goroutine, 60.0)
        self.report.jobs, self.report.jobs_lost = self.script.crowd.answered, self.script.crowd.lost
        if self.report.jobs_lost > self.report.kills:
            raise AssertionError(f"{self.report.jobs_lost} goroutines are lost by {self.report.kills} kills")
        self.script.drain(self.procs)
        self.report.answers = self.script.answered
        stress_trade.MARKET.set(None)
        for link in load.LINKS:
            link.set(None)
        self.rt.gc()
        self.rt.gc()
        self.rt.verify(3)
        stats = self.rt.stats()
        self.report.finalized, self.report.cleaned = stats.finalizers.executed, stats.cleanups.executed
        self.report.lost = stats.finalizers.lost + stats.cleanups.lost
        if not self.wait_for(lambda: files_of_the_coordinator() <= self.files, SETTLED_S):
            raise AssertionError(f"the coordinator has {files_of_the_coordinator()} files open, and had {self.files}")
        if stats.heap_objects > 64:
            raise AssertionError(f"{stats.heap_objects} objects are left that nobody can reach")
        heap = view(mheap_dtype, MHEAP)[0]
        gomp.debug.free_os_memory()  # so that nothing is on its way back while it is counted
        committed = 512 * os.fstat(self.rt._segments.heap_fd).st_blocks
        if committed != heap.xheap_committed:
            raise AssertionError(
                f"the file system has given {committed} bytes, the heap knows of {heap.xheap_committed}"
            )


def files_of_the_coordinator() -> int:
    return len(os.listdir(f"/proc/{int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)}/fd"))


def run(seconds: float, kills: int, procs: int, seed: int) -> Report:
    """``kills`` kills, or as many as ``seconds`` allow. Raises if anything is wrong afterwards."""
    os.environ.setdefault("GODEBUG", "clobberfree=1,gccheckmark=1")
    with gomp.Runtime(procs=procs, max_heap="1GiB") as rt:
        harness = Harness(rt, procs, seed, seconds)
        report = harness.run(kills)
        harness.drain()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end sooner")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    print(json.dumps(run(arguments.seconds, arguments.kills, arguments.procs, arguments.seed).summary()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
