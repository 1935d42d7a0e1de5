"""An attached process that does what a trader does on a P, until it is killed or its time is over; forked for :mod:`tests.faults.sites`."""

from __future__ import annotations

import gomp
from tests.faults import load

FIRST = 1 << 20  # number of a trader: above those of Ps
LONG_S = 3600.0


def main(arguments: list[str]) -> None:
    name, number, seconds = arguments[0], int(arguments[1]), float(arguments[2])
    gomp.attach(name, timeout=30)
    print("here", flush=True)
    load.work_a_shift(seconds, number, number)
