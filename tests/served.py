"""The real command, and a real ``gomp serve``, in processes of their own, for tests."""

import contextlib
import os
import subprocess
import sys
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

START_S = 120  # a first start compiles the kernels


def environment_in(directory):
    """Without settings of Go, and with the directory for its runtimes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    return kept | {"XDG_RUNTIME_DIR": str(directory)}


def gomp(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "gomp", *arguments],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env=environment,
    )


def run_in(cgroup, environment, *arguments):
    """As :func:`gomp`, in a cgroup."""
    return subprocess.run(
        [sys.executable, "-m", "gomp", *arguments],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env=environment,
        preexec_fn=cgroup.enter,
    )


class Service:
    """A ``gomp serve`` with a client of its metrics. What it logs goes into the file ``log``, or a pipe."""

    def __init__(self, config, environment, *flags, log=None):
        with contextlib.nullcontext(subprocess.PIPE) if log is None else open(log, "w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gomp", "serve", "--config", config, *flags],
                stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
            )  # fmt: skip
        self.announcement = self.process.stdout.readline()
        self.client = httpx.Client(base_url=self.announcement.rpartition(" ")[2].strip(), timeout=10)

    def close(self):
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def samples(self):
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    def counters(self):
        return {key: value for key, value in self.samples().items() if key[0].endswith(("_total", "_count", "_sum"))}

    def end(self, number):
        """Send a signal; (exit code, seconds it took, what was on stderr)."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, time.monotonic() - began, stderr
