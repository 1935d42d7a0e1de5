"""A real ``gomp serve`` inside a cgroup, with one program, seen from outside: by its metrics, as Prometheus sees it, and by its log."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gomp.config import NO_LIMIT
from gomp.errors import RuntimeLost
from gomp.runtime.discovery import connect
from gomp.stress.cgroup import OwnCgroup
from gomp.stress.report import Sample

_START_S, _END_S = 600.0, 20.0  # it may have to compile its kernels, with what the cgroup leaves it
_RAISED = re.compile(r"^(?:gomp\.errors\.)?(\w+: .*|\w+(?:Error|Memory))$", re.MULTILINE)


def summed(exposition: str) -> dict[str, float]:
    """What ``/metrics`` says by name, the samples of several summed."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


class StressedService:
    """``scrape_failures`` counts scrapes that were not answered."""

    def __init__(self, process: subprocess.Popen[str], name: str, url: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._client = httpx.Client(base_url=url, timeout=5.0, trust_env=False)
        self._log = log
        self._began = time.monotonic()
        self.scrape_failures = 0

    def samples(self) -> dict[str, float]:
        """Values by name, those of several summed. Empty if there is no answer."""
        try:
            text = self._client.get("/metrics").text
        except httpx.HTTPError:
            self.scrape_failures += 1
            return {}
        return summed(text)

    def look(self) -> Sample | None:
        """How it is now; None if it does not answer."""
        found = self.samples()
        if not found:
            return None
        return Sample(
            t=time.monotonic() - self._began,
            charge=int(found.get("gomp_cgroup_memory_usage_bytes", 0)),
            resident=int(found["gomp_heap_resident_bytes"]),
            mapped=int(found["gomp_mapped_bytes"]),
            limit=min(int(found["go_gc_gomemlimit_bytes"]), NO_LIMIT),  # a float, and so rounded up
            released=int(found["go_memstats_heap_released_bytes"]),
            goal=int(found["go_memstats_next_gc_bytes"]),
            live=int(found["go_gc_heap_live_bytes"]),
            allocated=int(found["go_memstats_alloc_bytes_total"]),
            gc_cpu_s=found["go_cpu_classes_gc_total_cpu_seconds_total"],
            cycles=int(found["go_gc_cycles_total_gc_cycles_total"]),
            procs=int(found["go_sched_gomaxprocs_threads"]),
            ended=int(found["gomp_p_programs_total"]),
            deaths=int(found["gomp_p_restarts_total"]),
            returned=int(found["gomp_scavenged_bytes_total"]),
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def collect(self) -> None:
        with connect(self._name) as client:
            client.collect()

    def is_sound(self) -> bool:
        """Whether the runtime goes on: it collects, and its heap verifies."""
        try:
            with connect(self._name) as client:
                client.collect()
                return not client.verify(3)["problems"]
        except RuntimeLost:
            return False

    def raised(self) -> str:
        """What the log says that the program raised; "" if nothing."""
        found: list[str] = _RAISED.findall(self._log.read_text(errors="replace"))
        return found[-1] if found else ""

    def close(self) -> None:
        self._client.close()


@contextmanager
def stressed_service(
    program: str, parameters: dict[str, object], cgroup: OwnCgroup, scratch: Path
) -> Iterator[StressedService]:
    """One that runs, ended at the end of the block. Raises RuntimeLost with its last words if it does not start."""
    name, config, log_file = cgroup.directory.name, scratch / "service.toml", scratch / "log"
    values = "".join(f"{key} = {json.dumps(value)}\n" for key, value in parameters.items())
    config.write_text(
        f'name = "{name}"\nmetrics_port = 0\ncontrol = "off"\n[[programs]]\nprogram = "stress.{program}"\n[programs.parameters]\n{values}'
    )
    command = [sys.executable, "-m", "gomp", "serve", "--config", str(config)]
    with log_file.open("w") as log:
        process = _start(command, cgroup, log)
        try:
            announced = _first_line(process)
            if not announced:
                raise RuntimeLost(f"the service did not start: {log_file.read_text(errors='replace')[-500:]}")
            with closing(StressedService(process, name, announced.split()[-1], log_file)) as service:
                yield service
        finally:
            _end(process)


def _start(command: list[str], cgroup: OwnCgroup, log: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=cgroup.enter)


def _first_line(process: subprocess.Popen[str]) -> str:
    """With which it says that it is there; "" if it has ended, or does not say anything."""
    out = process.stdout
    return out.readline() if out and select.select([out], [], [], _START_S)[0] else ""


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
