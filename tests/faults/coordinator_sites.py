"""The coordinator is killed at each numbered site that it comes to, also within the repair of what a killed P has left: it takes all down cleanly.

``make sites`` runs it after :mod:`tests.faults.sites`. Each kill ends a runtime, so each is of a runtime of its own. The script gets RuntimeLost, and
no process and nothing in ``/dev/shm`` is left.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gomp
from gomp.core import killsites
from gomp.core.shm import layout
from gomp.core.shm.records import GC_MARK, RUNTIME, p_dtype, runtime_dtype, view
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording
from tests.faults import guest, maps, sites
from tests.faults.harness import HANGS_S, PHASE_PATIENCE_S, Harness
from tests.forked_children import Child, Server

PROCS = 2
COME_BY_S = 8.0  # within which a coordinator comes to a new site, or it has none
KILLED_EVERY_S = 0.3  # a P, so that there is something to repair
TRACED_S = 0.05
VISIT_S = 0.2  # of an attached process that leaves by itself
LOST_S = 10.0
GONE_S = 5.0
DRY = 10
NOWHERE = -1


class Round:
    """One runtime, whose coordinator is killed at its next new site."""

    def __init__(self, table: killsites.Table, guests: Server, seed: int) -> None:
        self.table, self.guests = table, guests
        self.guest: Child | None = None
        self.number = guest.FIRST
        self.rng = random.Random(seed)
        self.pids: set[int] = set()
        self.names = names_in_shm()

    def run(self) -> bool:
        """Whether it came to a new site."""
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        self.table.last.value = NOWHERE
        told = ""
        try:
            with gomp.Runtime(procs=PROCS, max_heap="1GiB", name=sites.NAME) as rt:
                self._run(Harness(rt, PROCS, self.rng.getrandbits(32), 0.0))
        except gomp.RuntimeLost as lost:
            told = str(lost)
        assert bool(told) == (self.site != NOWHERE), f"killed at site {self.site}, and told: {told!r}"
        self._see_the_guest_off()
        self._check_that_all_are_gone()
        return self.site != NOWHERE

    @property
    def site(self) -> int:
        """At which the coordinator was killed."""
        return int(self.table.last.value)

    def _run(self, harness: Harness) -> None:
        harness.warm_up()
        coordinator = int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)
        self.pids = {coordinator, *self._ps()}
        if self.rng.random() < 0.5:
            self.table.arm(coordinator, killsites.OF_THE_COORDINATOR)
        else:
            self._arm_before_a_repair(harness, coordinator)
        until = time.monotonic() + COME_BY_S
        try:
            while self.table.victim.value == coordinator and time.monotonic() < until:
                self._disturb(harness)
        finally:
            self.pids |= self._ps()  # whom nobody replaces any more
        if self.table.victim.value == coordinator:
            self.table.victim.value = 0
            return
        until = time.monotonic() + LOST_S
        while time.monotonic() < until:
            harness.rt.gc()
        raise AssertionError(f"killed at site {self.table.last.value}, and a collection still ends")

    def _arm_before_a_repair(self, harness: Harness, coordinator: int) -> None:
        """A P dies while the heap is marked, and the coordinator is killed at what it comes to when it finds that out."""
        harness.wait_for(lambda: view(runtime_dtype, RUNTIME)[0].xgcphase == GC_MARK, PHASE_PATIENCE_S)
        os.kill(coordinator, signal.SIGSTOP)
        try:
            os.kill(self.rng.choice(sorted(self._ps())), signal.SIGKILL)
            self.table.arm(coordinator, killsites.OF_THE_COORDINATOR)
        finally:
            os.kill(coordinator, signal.SIGCONT)

    def _disturb(self, harness: Harness) -> None:
        """What makes a coordinator do all that it does."""
        if self.guest is None:
            self.number += 1
            self.guest = self.guests.start(sites.NAME, self.number, self.rng.choice([VISIT_S, guest.LONG_S]))
        elif self.guest.poll() not in (None, 0) and self.table.victim.value:
            raise AssertionError(f"a guest has ended, and nobody had died: {self.guest.communicate()}")
        elif self.rng.random() < 0.3:
            self._see_the_guest_off()
            maps.settle(self.number, None)
        harness.work(KILLED_EVERY_S * self.rng.random())
        pids = sorted(self._ps())
        if pids and self.rng.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):  # the coordinator has been killed, and its Ps with it
                os.kill(self.rng.choice(pids), signal.SIGKILL)
        try:
            self.rng.choice(self._demands(harness.rt))()
        except gomp.WorkerDied:
            pass
        except gomp.ConfigError:  # there is no such runtime
            if self.table.victim.value:
                raise

    def _demands(self, rt: gomp.Runtime) -> list[Callable[[], object]]:
        return [
            rt.gc,
            gomp.debug.free_os_memory,
            gomp.debug.leaked_goroutines,
            lambda: rt.verify(3),
            lambda: gomp.debug.set_gc_percent(self.rng.choice([50, 100, 200])),
            lambda: gomp.debug.set_memory_limit(self.rng.choice([64, 128, 256]) << 20),
            self._change_procs,
            lambda: list(Recording(choose(sites.NAME), TRACED_S, maps=False).pieces()),
        ]

    @staticmethod
    def _change_procs() -> None:
        for procs in (1, PROCS):
            gomp.debug.set_max_procs(procs)

    def _see_the_guest_off(self) -> None:
        """However far it has come; it may have ended with the runtime."""
        if self.guest is not None:
            self.guest.kill()
            self.guest.communicate()
            self.guest = None

    @staticmethod
    def _ps() -> set[int]:
        return {int(view(p_dtype, layout.p_addr(idx))[0].xpid) for idx in range(PROCS)} - {0}

    def _check_that_all_are_gone(self) -> None:
        until = time.monotonic() + GONE_S
        while left := [pid for pid in self.pids if _is_running(pid)]:
            assert time.monotonic() < until, f"killed at site {self.site}: {left} are still there"
            time.sleep(0.01)
        left_names = names_in_shm() - self.names
        assert not left_names, f"killed at site {self.site}: {left_names} are left in /dev/shm"


def names_in_shm() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("gomp")}


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    directory = sites.directory()
    print(f"seed {arguments.seed}", flush=True)
    seeds = random.Random(arguments.seed)
    table, names = killsites.Table(directory), sites.names_of_sites(directory)
    guests = Server("tests.faults.guest")
    kills = dry = 0
    while kills < arguments.most and dry < DRY:
        one = Round(table, guests, seeds.getrandbits(32))
        came = one.run()
        kills, dry = kills + came, 0 if came else dry + 1
        if came:
            print(f"{kills}: site {one.site} in {names[one.site]}", flush=True)
    guests.close()
    print(json.dumps({"kills": kills} | sites.summary(table, killsites.OF_THE_COORDINATOR, names), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
