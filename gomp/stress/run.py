"""Running one stress program in a cgroup, and what came of it."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gomp.cgroup import LEAST_OF_A_SERVICE
from gomp.config import NO_LIMIT, parse_byte_count
from gomp.errors import ConfigError, RuntimeLost
from gomp.stress.cgroup import own_cgroup
from gomp.stress.report import Report, Sample
from gomp.stress.service import StressedService, stressed_service

_PERIOD_S = 0.25
_OVERTIME_S = 60.0  # for a program that takes longer than it should, or a leak
_RETURN_S = 30.0
_SMALL = 16 << 20  # a heap that is back to nearly nothing
_DOCKER = re.compile(r"([0-9]+)([bkmg]?)", re.IGNORECASE)
_SHIFTS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}


def parse_memory(text: str) -> int:
    """``256m`` as docker writes it, or ``256MiB`` as Go does, in bytes. Raises ConfigError."""
    found = _DOCKER.fullmatch(text)
    memory = int(found[1]) << _SHIFTS[found[2].lower()] if found else parse_byte_count(text)
    if memory is None:
        raise ConfigError(f"memory: write a number of bytes, as 256m or 256MiB (not {text!r})")
    if memory < LEAST_OF_A_SERVICE:
        raise ConfigError(
            f"memory: {text} is too little, for the interpreters take most of it: give {LEAST_OF_A_SERVICE >> 20}m or more"
        )
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory > most:
        raise ConfigError(f"memory: {text} is more than this machine has: give {most >> 20}m or less")
    return memory


def programs() -> list[str]:
    """What can be run."""
    spec = importlib.util.find_spec("workers.stress")
    places = (spec.submodule_search_locations or ()) if spec else ()
    found = (file.stem for place in places for file in Path(place).glob("*.py"))
    return sorted(name for name in found if name not in ("__init__", "blocks"))


def run(program: str, memory: int, seconds: float) -> Report:
    """Run ``program`` in a service under a limit of so many bytes.

    Raises ConfigError if it is none, or no cgroup can be made, and RuntimeLost if the service never answers.
    """
    if program not in programs():
        raise ConfigError(f"there is no stress program {program}: there are {', '.join(programs())}")
    samples: list[Sample] = []
    with own_cgroup(memory) as cgroup, tempfile.TemporaryDirectory() as scratch:
        with stressed_service(program, {"seconds": seconds}, cgroup, Path(scratch)) as service:
            _watch(service, samples, seconds + _OVERTIME_S, lambda sample: sample.ended > 0)
            return_s = _return(service, samples)
            went_on = service.is_alive and service.is_sound()
            raised = service.raised()
        if not samples:
            raise RuntimeLost(f"the service did not answer once; the kernel has killed {cgroup.oom_kills()} processes")
        last = samples[-1]
        limits = [sample.limit for sample in samples if sample.limit != NO_LIMIT]
        return Report(
            program=program,
            memory=memory,
            memory_limit=limits[-1] if limits else None,
            seconds=seconds,
            procs=last.procs,
            peak_charge=cgroup.peak() or max(sample.charge for sample in samples),
            oom_kills=cgroup.oom_kills(),
            deaths=last.deaths,
            scrape_failures=service.scrape_failures,
            error=raised,
            went_on=went_on,
            released=last.returned,
            return_s=return_s,
            samples=tuple(samples),
        )


def _watch(
    service: StressedService, samples: list[Sample], seconds: float, is_over: Callable[[Sample], bool]
) -> float | None:
    """Look until it is over; how long that took, or None if it took too long or the service has ended."""
    began = time.monotonic()
    while time.monotonic() - began < seconds and service.is_alive:
        sample = service.look()
        if sample is not None:
            samples.append(sample)
            if is_over(sample):
                return time.monotonic() - began
        time.sleep(_PERIOD_S)
    return None


def _return(service: StressedService, samples: list[Sample]) -> float | None:
    """Let the dead be found, as the next collections would, and wait for the background scavenger."""
    if not service.is_alive:
        return None
    began = time.monotonic()
    service.collect()
    service.collect()
    took = _watch(service, samples, _RETURN_S, lambda sample: sample.resident < _SMALL)
    return None if took is None else time.monotonic() - began
