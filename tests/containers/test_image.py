"""The Dockerfile's image, built and run by podman as a container that is limited: 512 MiB of memory and the usual 64 MiB of /dev/shm.

The base is python:3.13-slim, or what GOMP_TEST_BASE names. Where neither can be had, debootstrap makes one, which is
kept as ``localhost/gomp-base``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from real_podman import Container, podman

pytestmark = pytest.mark.slow

RUN_S = 60
LIMIT = 512 << 20


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    running = Container(image, None, LIMIT)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.remove()


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


def test_its_own_programs_are_not_compiled_in_the_container(container: Container) -> None:
    changed = podman("diff", container.id).stdout.splitlines()
    assert not [line for line in changed if line.endswith(".pickle")]


def test_nothing_in_it_runs_as_root(container: Container) -> None:
    assert container.exec("id", "-u").stdout.strip() == "10001"


def test_the_health_check_of_the_image_passes_until_the_service_hangs(container: Container) -> None:
    podman("healthcheck", "run", container.id)
    service = next(pid for pid, name in container.children().items() if name == "gomp-service")
    os.kill(service, signal.SIGSTOP)
    try:
        assert podman("healthcheck", "run", container.id, check=False).returncode == 1
    finally:
        os.kill(service, signal.SIGCONT)


def test_sigterm_ends_the_container_within_two_seconds(container: Container) -> None:
    code, seconds = container.end()
    assert seconds < 2.0
    assert code == "0", container.logs()
