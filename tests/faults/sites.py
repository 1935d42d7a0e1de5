"""Ps are killed at each numbered site: before every write of shared memory that they come to (:mod:`gomp.core.killsites`).

``make sites``, or ``python -m tests.faults.sites --most 25`` with GOMP_KILL_SITES set. The load, and what is looked at after each kill, are those of
:mod:`tests.faults.harness`; the next site at which nobody has been killed yet strikes whichever P it is the turn of. It ends when none of them has
come to a new one for a while. The table keeps what was visited, so a run goes on where another has ended.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import gomp
from gomp.core import killsites
from tests.faults.harness import UP_S, Harness, p_record

COME_BY_S = 1.0  # within which a P comes to a new site, or it is the turn of another
PROCS = 6  # each lives long enough to be started again at once
DRY = 20  # turns in a row without a new site: there are none
CHECKED_S = 120.0  # a kill, its repair and a look at everything take seconds
_PARTS = re.compile(r"(\d+)")


class Sites(Harness):
    """A runtime under load whose Ps are killed at sites."""

    def __init__(self, rt: gomp.Runtime, procs: int, seed: int, table: killsites.Table) -> None:
        super().__init__(rt, procs, seed, seconds=0.0)
        self.table = table
        self.at: list[int] = []

    def visit(self, most: int) -> None:
        """Kill at so many sites, or until no P comes to a new one."""
        self.warm_up()
        dry = turn = 0
        while len(self.at) < most and dry < DRY:
            turn += 1
            dry = 0 if self.kill_at_next_site(turn % self.procs) else dry + 1
            self.check()
        self.check()

    def kill_at_next_site(self, idx: int) -> bool:
        """Let this P run until it comes to a new site, and whether it did."""
        if not self.wait_for(lambda: p_record(idx).xpid, UP_S):
            raise AssertionError(f"P{idx} has had no process for {UP_S:.0f} s")
        pid = int(p_record(idx).xpid)
        self.table.victim.value = pid
        until = time.monotonic() + COME_BY_S
        while self.table.victim.value == pid and time.monotonic() < until:
            self.work(0.0)
        if self.table.victim.value == pid:
            self.table.victim.value = 0
            return False
        site = int(self.table.last.value)
        self.at.append(site)
        self.report.kills += 1
        if not self.wait_for(lambda: int(p_record(idx).xpid) != pid, UP_S):
            raise AssertionError(f"the death of P{idx} at site {site} has not been noticed for {UP_S:.0f} s")
        return True


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


def summary(harness: Sites, names: list[str]) -> dict[str, Any]:
    """How many sites there are and were visited, and of which kernels none was."""
    visited = harness.table.visited()
    seen = {names[n] for n in visited}
    unseen = collections.Counter(name for name in names if name not in seen)
    return {
        **harness.report.summary(),
        "sites": len(names),
        "visited": len(visited),
        "kernels": len(set(names)),
        "kernels_visited": len(seen),
        "not_visited": dict(unseen.most_common()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--procs", type=int, default=PROCS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    where = directory()
    print(f"seed {arguments.seed}", flush=True)
    with gomp.Runtime(procs=arguments.procs, max_heap="1GiB") as rt:
        harness = Sites(rt, arguments.procs, arguments.seed, killsites.Table(where))
        try:
            harness.visit(arguments.most)
        except BaseException:
            names = names_of_sites(where)
            print(f"the last kills: {[(n, names[n]) for n in harness.at[-3:]]}", file=sys.stderr, flush=True)
            raise
        harness.drain()
    print(json.dumps(summary(harness, names_of_sites(where)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
