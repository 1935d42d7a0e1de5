"""What it costs a service to be looked at: ``python -m benchmarks.observing [--pairs N]``.

The same load on two Ps, in services that are started in turn: one of which nobody asks anything, without a memory profile; and one with
everything on, its metrics read every second with ``metrics = "all"``, its heap profile every five, the live page open, a gctrace line for each
cycle and the memory profile at Go's rate. Compared is what the programs allocate for a second of CPU time of all processes, those included that
answer: where every processor is busy, that is what is left of the throughput.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

WARM_S, MEASURED_S = 2.0, 6.0
SCRAPE_S, PROFILE_S = 1.0, 5.0
LOAD = """
procs = 2
metrics_port = 0
max_heap = "1GiB"
metrics = "{metrics}"

[[programs]]
program = "churn"
parameters = {{ live = 100000, ops = 10000000000, goroutines = 2 }}
"""


@contextlib.contextmanager
def service(directory: Path, metrics: str, godebug: str) -> Iterator[httpx.Client]:
    config = directory / "service.toml"
    config.write_text(LOAD.format(metrics=metrics))
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "gomp", "serve", "--config", config], stdout=subprocess.PIPE, stderr=log, text=True,
            env=os.environ | {"GODEBUG": godebug, "XDG_RUNTIME_DIR": str(directory)},
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        try:
            url = process.stdout.readline().rpartition(" ")[2].strip()
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                yield client
        finally:
            process.terminate()


def read(client: httpx.Client) -> tuple[float, float]:
    """Objects allocated and CPU seconds used so far."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    values = {s.name: s.value for family in families for s in family.samples if not s.labels}
    return values["go_memstats_mallocs_total"], values["process_cpu_seconds_total"]


def measure(client: httpx.Client) -> float:
    """Objects in a CPU second."""
    time.sleep(WARM_S)
    objects, cpu_s = read(client)
    time.sleep(MEASURED_S)
    objects_after, cpu_s_after = read(client)
    assert objects_after > objects, "the service runs its program"
    return (objects_after - objects) / (cpu_s_after - cpu_s)


@contextlib.contextmanager
def looked_at(client: httpx.Client) -> Iterator[None]:
    """By as many as one service may have to bear."""
    over = threading.Event()

    def ask(path: str, period: float) -> None:
        with httpx.Client(base_url=client.base_url, timeout=20, trust_env=False) as own:
            while not over.wait(period):
                own.get(path).raise_for_status()

    def watch() -> None:
        with (
            httpx.Client(base_url=client.base_url, timeout=20, trust_env=False) as own,
            own.stream("GET", "/live") as answer,
        ):
            for _ in answer.iter_raw():
                if over.is_set():
                    return

    jobs = [
        threading.Thread(target=ask, args=("/metrics", SCRAPE_S)),
        threading.Thread(target=ask, args=("/debug/pprof/heap", PROFILE_S)),
        threading.Thread(target=watch),
    ]
    for job in jobs:
        job.start()
    try:
        yield
    finally:
        over.set()
        for job in jobs:
            job.join()


def run(everything: bool) -> float:
    with tempfile.TemporaryDirectory() as directory:
        metrics, godebug = ("all", "gctrace=1") if everything else ("default", "memprofilerate=0")
        with service(Path(directory), metrics, godebug) as client:
            if not everything:
                return measure(client)
            with looked_at(client):
                return measure(client)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    off, on = [], []
    for i in range(pairs):
        for is_on in (i % 2 == 0, i % 2 != 0):
            (on if is_on else off).append(run(is_on))
    ratios = [b / a for a, b in zip(off, on, strict=True)]
    error = statistics.stdev(ratios) / pairs**0.5
    nothing, everything = (statistics.median(rates) / 1e6 for rates in (off, on))
    print(
        f"{pairs} pairs, millions of objects a CPU second: {nothing:.2f} with nothing on, {everything:.2f} with everything."
    )
    print(
        f"With everything on it is {statistics.mean(ratios):.3f} ± {error:.3f} times as much, median {statistics.median(ratios):.3f}."
    )


if __name__ == "__main__":
    main()
