"""Ps, or attached processes, are killed at each numbered site: before every write of shared memory that they come to (:mod:`gomp.core.killsites`).

``make sites``, or ``python -m tests.faults.sites --most 25`` with GOMP_KILL_SITES set; ``--guests`` for attached processes. The load, and what is
looked at after each kill, are those of :mod:`tests.faults.harness`; the next site at which none of them has been killed yet strikes whoever it is the
turn of. It ends when none has come to a new one for a while. The table keeps what was visited, so a run goes on where another has ended.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gomp
from gomp.core import killsites
from gomp.runtime import discovery
from tests.faults import guest, maps
from tests.faults.harness import UP_S, Harness, p_record
from tests.forked_children import Child, Server

PROCS = 6  # each lives long enough to be started again at once
COME_BY_S = 1.0  # within which one comes to a new site, or it is the turn of another
DRY = 20  # turns in a row without a new site: there are none
NAME = "sites"
ANYBODY = killsites.OF_A_P | killsites.OF_THE_COORDINATOR | killsites.OF_A_GUEST
_PARTS = re.compile(r"(\d+)")


class Sites(Harness):
    """A runtime under load whose Ps are killed at sites."""

    kind = killsites.OF_A_P

    def __init__(self, rt: gomp.Runtime, procs: int, seed: int, table: killsites.Table) -> None:
        super().__init__(rt, procs, seed, seconds=0.0)
        self.table = table
        self.at: list[int] = []
        self.before = len(table.visited(self.kind))

    @property
    def killed_ps(self) -> int:
        return len(self.table.visited(self.kind)) - self.before

    def visit(self, most: int) -> None:
        """Kill at so many sites, or until nobody comes to a new one."""
        self.warm_up()
        dry = turn = 0
        while len(self.at) < most and dry < DRY:
            turn += 1
            dry = 0 if self.kill_at_next_site(turn % self.procs) else dry + 1
            self.check()

    def kill_at_next_site(self, idx: int) -> bool:
        """Let the victim run until it comes to a new site, and whether it did."""
        pid = self.victim(idx)
        self.table.arm(pid, self.kind)
        until = time.monotonic() + COME_BY_S
        while self.table.victim.value == pid and time.monotonic() < until:
            self.work(0.0)
        if self.table.victim.value == pid:
            self.table.victim.value = 0
            return False
        self.at.append(int(self.table.last.value))
        self.report.kills += 1
        if not self.wait_for(lambda: self.is_gone(idx, pid), UP_S):
            raise AssertionError(f"the death of {pid} at site {self.at[-1]} has not been noticed for {UP_S:.0f} s")
        return True

    def victim(self, idx: int) -> int:
        if not self.wait_for(lambda: p_record(idx).xpid, UP_S):
            raise AssertionError(f"P{idx} has had no process for {UP_S:.0f} s")
        return int(p_record(idx).xpid)

    def is_gone(self, idx: int, pid: int) -> bool:
        return int(p_record(idx).xpid) != pid


class Guests(Sites):
    """The same, whose attached processes are killed: nobody else dies."""

    kind = killsites.OF_A_GUEST

    def __init__(self, rt: gomp.Runtime, procs: int, seed: int, table: killsites.Table) -> None:
        super().__init__(rt, procs, seed, table)
        self.server = Server("tests.faults.guest")
        self.guest: Child | None = None
        self.number = guest.FIRST

    @property
    def killed_ps(self) -> int:
        return 0

    def victim(self, idx: int) -> int:
        if self.guest is None:
            self.number += 1
            self.guest = self.server.start(NAME, self.number, guest.LONG_S)
            if self.guest.stdout.readline() != "here\n":
                raise AssertionError(f"it did not attach: {self.guest.communicate()}")
        elif self.guest.poll() is not None:
            raise AssertionError(f"it has ended, at no site: {self.guest.returncode} {self.guest.communicate()}")
        return self.guest.pid

    def is_gone(self, idx: int, pid: int) -> bool:
        if self.guest is None or self.guest.poll() is None or pid in discovery.choose(NAME).attached:
            return False
        self._forget_guest(self.guest)
        return True

    def _forget_guest(self, dead: Child) -> None:
        said = dead.communicate()
        if dead.returncode != -signal.SIGKILL:
            raise AssertionError(f"it has ended by itself: {dead.returncode} {said}")
        self.guest = None
        maps.settle(self.number, None)

    def drain(self) -> None:
        if self.guest is not None:
            self.guest.kill()
            self._forget_guest(self.guest)
        self.server.close()
        super().drain()


def directory() -> str:
    """Where kernels with sites are. Exits if none is named."""
    if killsites.DIRECTORY is None:
        sys.exit("set GOMP_KILL_SITES to a directory whose kernels have sites: `make sites` does")
    return killsites.DIRECTORY


def names_of_sites(where: str) -> list[str]:
    """By number, the kernel of each site."""
    return [_name(line.split()[0]) for line in Path(where, "sites.txt").read_text().splitlines()]


def _name(mangled: str) -> str:
    """``gomp.core.gc.mark.scan`` of ``_ZN4gomp4core2gc4mark4scanB2v1…``: each part comes after its length."""
    rest, parts = mangled.strip('"').removeprefix("_ZN"), []
    while match := _PARTS.match(rest):
        end = match.end() + int(match[0])
        parts.append(rest[match.end() : end])
        rest = rest[end:]
    return ".".join(parts)


def summary(table: killsites.Table, kind: int, names: list[str]) -> dict[str, Any]:
    """How many sites there are and were visited, and of which kernels none was."""
    visited = table.visited(kind)
    seen = {names[n] for n in visited}
    unseen = collections.Counter(name for name in names if name not in seen)
    return {
        "sites": len(names),
        "visited": len(visited),
        "visited_by_anybody": len(table.visited(ANYBODY)),
        "kernels": len(set(names)),
        "kernels_visited": len(seen),
        "not_visited": dict(unseen.most_common()),
    }


def main() -> int | str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", action="store_true", help="kill attached processes")
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--procs", type=int, default=PROCS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    where = directory()
    print(f"seed {arguments.seed}", flush=True)
    table = killsites.Table(where)
    with gomp.Runtime(procs=arguments.procs, max_heap="1GiB", name=NAME) as rt:
        harness = (Guests if arguments.guests else Sites)(rt, arguments.procs, arguments.seed, table)
        try:
            harness.visit(arguments.most)
        except BaseException:
            names = names_of_sites(where)
            print(f"the last kills: {[(n, names[n]) for n in harness.at[-3:]]}", file=sys.stderr, flush=True)
            raise
        harness.drain()
    found = summary(table, harness.kind, names_of_sites(where))
    print(json.dumps(harness.report.summary() | found, indent=1))
    return 0 if found["visited"] else f"nobody has come to any site: remove {where}, and build anew"


if __name__ == "__main__":
    sys.exit(main())
