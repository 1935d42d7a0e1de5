"""The Dockerfile's image, built and run by podman as a container that is limited: 512 MiB of memory and the usual 64 MiB of /dev/shm.

The base is python:3.13-slim, or what GOMP_TEST_BASE names. Where neither can be had, debootstrap makes one, which is
kept as ``localhost/gomp-base``.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
IMAGE, MADE_BASE, USUAL_BASE = "localhost/gomp-test", "localhost/gomp-base", "docker.io/library/python:3.13-slim"
BUILD_S, START_S, RUN_S = 1200, 60, 60
LIMIT = 512 << 20


def podman(*arguments: str | Path, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [*map(str, ("podman", *arguments))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done


# --- the image --------------------------------------------------------------------------------------------------------


def find_base() -> str:
    """An image with Python 3.11 or newer to build upon; skips where there is none."""
    if named := os.environ.get("GOMP_TEST_BASE"):
        return named
    for image in (USUAL_BASE, MADE_BASE):
        if podman("image", "exists", image, check=False).returncode == 0:
            return image
    if podman("pull", "--quiet", USUAL_BASE, timeout=BUILD_S, check=False).returncode == 0:
        return USUAL_BASE
    if not shutil.which("debootstrap") or os.geteuid():
        pytest.skip(f"{USUAL_BASE} cannot be pulled, and without root and debootstrap no other base can be made")
    return make_base()


def make_base() -> str:
    root = Path("/var/tmp") / f"gomp-base-{os.getpid()}"
    packages = "python3,python3-venv,ca-certificates"
    try:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root, "http://deb.debian.org/debian"],
            capture_output=True, text=True, timeout=BUILD_S, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"{USUAL_BASE} cannot be pulled, and debootstrap failed: {made.stdout[-200:]}")
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(["podman", "import", "-", MADE_BASE], stdin=packed.stdout, check=True, capture_output=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return MADE_BASE


def pip_mounts() -> list[str]:
    """This machine's pip configuration and the files that it names, so that pip finds its packages in the build as well."""
    command = [sys.executable, "-m", "pip", "config", "debug"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [Path(path) for path in re.findall(r"(?:file://)?(/[\w./-]+)", listed)]
    named = {path.parent if path.name == "simple" else path for path in found}  # an index leads to files beside it
    paths = sorted(path for path in named if path.exists() and not path.is_relative_to(sys.prefix))
    return [argument for path in paths for argument in ("-v", f"{path}:{path}:ro")]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    probe = podman("info", check=False)
    if probe.returncode:
        pytest.skip(f"podman does not work here: {probe.stderr.strip()[-200:]}")
    certificate = os.environ.get("PIP_CERT")
    environment = ["--env", f"PIP_CERT={certificate}"] if certificate else []
    # A health check is part of docker's format and not of OCI's.
    podman("build", "--format", "docker", "--network=host", "--isolation=chroot", "--build-arg", f"BASE={find_base()}",
           *pip_mounts(), *environment, "-t", IMAGE, ROOT, timeout=BUILD_S)  # fmt: skip
    yield IMAGE
    podman("rmi", "--force", IMAGE, check=False)


# --- a container of it ------------------------------------------------------------------------------------------------


class Container:
    def __init__(self, image: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        files, tasks = (
            min(resource.getrlimit(of)[1], most)
            for of, most in ((resource.RLIMIT_NOFILE, 20_000), (resource.RLIMIT_NPROC, 4_000))
        )
        runtime = ("--runtime", "runc") if shutil.which("runc") else ()
        self.id = podman(
            *runtime, "--cgroup-manager=cgroupfs", "run", "--detach", "--network=host", f"--memory={LIMIT}",
            f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={tasks}:{tasks}", "--env", f"GOMP_METRICS_PORT={port}", image,
        ).stdout.split()[-1]  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready within {START_S} s:\n{self.logs()}")

    def samples(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {s.name: s.value for family in families for s in family.samples}

    def logs(self) -> str:
        done = podman("logs", self.id)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    running = Container(image)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.client.close()
        podman("rm", "--force", "--time=2", running.id, check=False)


def has_worked(samples: dict[str, float]) -> bool:
    return samples["go_gc_cycles_total_gc_cycles_total"] >= 2 and samples["gomp_heap_live_bytes"] > 16 << 20


def test_the_service_works_in_a_container_of_512_mib_with_the_usual_dev_shm(container: Container) -> None:
    assert container.client.get("/livez").text.strip() == "ok"
    assert container.client.get("/readyz").text.strip() == "ready"
    deadline = time.monotonic() + RUN_S
    while not has_worked(seen := container.samples()):
        assert time.monotonic() < deadline, (seen, container.logs())
        time.sleep(0.5)
    assert "the heap is in a memfd" in container.logs(), "64 MiB of /dev/shm are less than max_heap"


def test_the_health_check_of_the_image_passes(container: Container) -> None:
    podman("healthcheck", "run", container.id)


def test_sigterm_ends_the_container_within_two_seconds(container: Container) -> None:
    began = time.monotonic()
    podman("kill", "--signal=TERM", container.id)
    code = podman("wait", container.id).stdout.strip()
    assert time.monotonic() - began < 2.0
    assert code == "0", container.logs()
