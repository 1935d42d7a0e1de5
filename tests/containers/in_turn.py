"""A program for a container: each of the stress programs for some seconds, and the leak, which has to end with gomp.OutOfMemory."""

from __future__ import annotations

import logging

import gomp
from workers.stress import burst_idle, leak, ramp, sawtooth, thrash

log = logging.getLogger(__name__)


def main(seconds: float) -> None:
    ramp.main(seconds)
    burst_idle.main(seconds, period=seconds)
    thrash.main(seconds)
    sawtooth.main(seconds, period=seconds / 2)
    try:
        leak.main(10 * seconds, full=0.05)
    except gomp.OutOfMemory:
        log.info("the leak has ended with gomp.OutOfMemory")
