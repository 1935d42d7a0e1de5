"""A service under mixed load for an hour, with kills, changes of its settings, and processes that attach and leave: nothing of it grows.

``make soak``, or ``python -m tests.soak.soak --minutes 5``. It prints the figures of start, middle and end, and fails if one grows, or if a scrape
failed, a program raised, a P died that was not killed, a collection would not end or the heap does not verify.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from gomp.runtime.discovery import connect
from tests.forked_children import Child, Server
from tests.served import Service, environment_in
from tests.soak import figures

ROOT = Path(__file__).parents[2]
CONFIG = """
name = "soak"
procs = 2
metrics_port = 0
metrics = "all"
max_heap = "1GiB"
[[programs]]
program = "mixed"
everywhere = true
[programs.parameters]
live = "32MiB"
[[programs]]
program = "tests.soak.programs:converse"
everywhere = true
"""
READY_S = 120.0
COMPILED_S = 600.0  # where processors are few, and busy
SAMPLE_S = 2.0
PAUSE_S = 0.5
MOST_VISITS = 8  # at once: each has a P's tables, which stay
VISIT_S = 40.0  # the longest visit, an attach that has to wait for a P included
OUTAGE_S = 30.0
ANSWER_S = 60.0  # what the coordinator does first waits for kills and their repair, too


class Soak:
    """The service, and who disturbs it."""

    def __init__(self, service: Service, guests: Server, rng: random.Random) -> None:
        self.service, self.guests, self.rng = service, guests, rng
        service.client.timeout = httpx.Timeout(ANSWER_S)
        self.report = figures.Report()
        self.visits: list[tuple[Child, str, float]] = []
        self.done = dict.fromkeys(("kills", "changes", "visits", "collections", "profiles"), 0)
        self.disturbances: list[Callable[[], None]] = [
            self.kill, self.change, self.invite, self.invite, self.collect, self.profile,
        ]  # fmt: skip

    def run(self, seconds: float) -> None:
        self.wait_until_ready(READY_S)
        self.warm_up()
        end = time.monotonic() + seconds
        sampled = 0.0
        while time.monotonic() < end:
            self.rng.choice(self.disturbances)()
            self.see_visitors_off()
            time.sleep(self.rng.random() * 2 * PAUSE_S)
            if time.monotonic() > sampled + SAMPLE_S:
                sampled = time.monotonic()
                sample = figures.take(self.service.client, self.service.process.pid)
                if sample:
                    self.report.samples.append(sample)
        self.await_leaving()
        self.wait_until_ready(OUTAGE_S)
        self.check()

    def await_leaving(self) -> None:
        """Until no visitor is left."""
        while self.visits:
            self.see_visitors_off()
            time.sleep(PAUSE_S)

    def check(self) -> None:
        """The heap is sound, and no P has died by itself, or was killed for what it held up."""
        with connect("soak") as client:
            problems = client.verify(3)["problems"]
        if problems:
            raise AssertionError(f"the heap is not sound: {problems}")
        samples = self.service.samples()
        deaths = sum(int(samples["gomp_p_restarts_total", p]) for p in figures.OWN_PS)
        if deaths > self.done["kills"]:
            raise AssertionError(f"{deaths} processes of Ps have died, and {self.done['kills']} were killed")

    def warm_up(self) -> None:
        """What visitors run is compiled, which takes longer than a visit, and what only grows to a size has it: as many visitors as there may be
        are there at once, in a trace."""
        first = self.guests.start("soak", "fill")
        _, said = first.communicate(timeout=COMPILED_S)
        if first.returncode != 0 or said:
            raise AssertionError(f"the first visitor ended with {first.returncode}: {said}")
        while len(self.visits) < MOST_VISITS:
            self.visit("stay")
        for child, *_ in self.visits:
            child.stdout.readline()  # it has attached, and worked
        self.service.client.get("/debug/trace?seconds=0.5").raise_for_status()
        self.await_leaving()

    def wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.service.client.get("/readyz").status_code != 200:
            if time.monotonic() > deadline:
                raise AssertionError(f"the service is not ready after {seconds:.0f} s")
            time.sleep(0.1)

    def kill(self) -> None:
        pid = int(self.service.samples().get(("gomp_p_pid", self.rng.choice(figures.OWN_PS)), 0))
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.done["kills"] += 1

    def change(self) -> None:
        with connect("soak") as client:
            if self.rng.random() < 0.5:
                client.set("gogc", self.rng.choice([50, 100, 200]))
            else:
                client.set("memory_limit", self.rng.choice([128, 256, 512]) << 20)
        self.done["changes"] += 1

    def invite(self) -> None:
        if len(self.visits) < MOST_VISITS:
            self.visit(self.rng.choice(["close", "exit", "stay"]))
            self.done["visits"] += 1

    def visit(self, how: str) -> None:
        self.visits.append((self.guests.start("soak", how), how, time.monotonic()))

    def see_visitors_off(self) -> None:
        """Who has come to stay is killed at some time; all others end by themselves, and say nothing else."""
        for visit in list(self.visits):
            child, how, began = visit
            if how == "stay" and time.monotonic() > began + 1 + self.rng.random():
                child.kill()
            code = child.poll()
            if code is not None:
                self.visits.remove(visit)
                _, said = child.communicate()
                if code != (-signal.SIGKILL if how == "stay" else 0) or said:
                    raise AssertionError(f"a process that attached to {how} ended with {code}: {said}")
            elif time.monotonic() > began + VISIT_S:
                raise AssertionError(f"a process that attached to {how} is there after {VISIT_S:.0f} s")

    def collect(self) -> None:
        with connect("soak") as client:
            client.collect() if self.rng.random() < 0.7 else client.free_os_memory()
        self.done["collections"] += 1

    def profile(self) -> None:
        path = self.rng.choice(
            ["heap", "goroutine?debug=2", "goroutineleak", "profile?seconds=1", "allocs", "../trace?seconds=0.5"]
        )
        answer = self.service.client.get(f"/debug/pprof/{path}")
        if answer.status_code != 200:
            raise AssertionError(f"{path}: {answer.status_code} {answer.text[:200]}")
        self.done["profiles"] += 1


def run(seconds: float, seed: int, directory: Path) -> tuple[Soak, str]:
    """The soak, and what the service wrote. Raises AssertionError or what the service's clients raise."""
    config = directory / "service.toml"
    config.write_text(CONFIG)
    os.environ["XDG_RUNTIME_DIR"] = str(directory)  # so that guests find it
    guests = Server("tests.soak.programs")
    service = Service(config, environment_in(directory) | {"PYTHONPATH": str(ROOT)}, log=directory / "log")
    try:
        soak = Soak(service, guests, random.Random(seed))
        soak.run(seconds)
        service.process.send_signal(signal.SIGTERM)
        if service.process.wait(10) != 0:
            raise AssertionError(f"the service ended with {service.process.returncode}")
    finally:
        service.close()
        guests.close()
    return soak, (directory / "log").read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--short", action="store_true", help="too short to tell what grows")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # with all that was started
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        try:
            soak, log = run(60 * arguments.minutes, arguments.seed, Path(directory))
        except Exception:
            errors = [line for line in Path(directory, "log").read_text().splitlines() if " ERROR " in line]
            print(*[line for line in errors if "killed by SIGKILL" not in line][-20:], sep="\n", file=sys.stderr)
            raise
    print(f"{arguments.minutes:g} minutes: {', '.join(f'{n} {what}' for what, n in soak.done.items())}\n")
    wrong = []
    if not arguments.short:
        print(soak.report.table())
        wrong += [f"{name} grows" for name in soak.report.growing()]
    wrong += [line for line in log.splitlines() if line.startswith("Traceback")]
    print("\n".join(wrong) or "\nnothing grows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
