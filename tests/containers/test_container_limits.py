"""Life under a limit, in a real container of 256 MiB with the usual 64 MiB of /dev/shm: no misuse of memory ends the service.

The charge and the kills are the kernel's own figures, of the container's cgroup. The short run is of this machine's Python in an image with nothing
in it; with ``--run-slow`` the Dockerfile's image runs each program for two minutes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_podman import Container, needs_podman

from gomp.core import COMPILED

MEMORY = 256 << 20
MIB = 1 << 20
SHORT_S, LONG_S = 1.0, 120.0
OVERTIME_S = 60.0
ROOMY, ROOMY_S = 224 << 20, 30.0  # with less left than this leaves, a service collects by itself
PERIOD_S = 0.2
REAPED_S, END_S = 3.0, 2.0
OUT_OF_MEMORY = "OutOfMemory: the heap is full, even after a collection"


def write_config(directory: Path, program: str, **parameters: object) -> Path:
    file = directory / "service.toml"
    values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in parameters.items())
    file.write_text(
        f'name = "limited"\nmetrics_host = "127.0.0.1"\n[[programs]]\nprogram = "{program}"\n[programs.parameters]\n{values}'
    )
    return file


def scrape_until_ended(container: Container, seconds: float) -> list[dict[str, float]]:
    """What was scraped until the program had ended."""
    found, deadline = [], time.monotonic() + seconds
    while not found or not found[-1]["gomp_p_programs_total"]:
        assert time.monotonic() < deadline, f"the program did not end:\n{container.logs()}"
        found.append(container.samples())
        assert found[-1], f"a scrape was not answered:\n{container.logs()}"
        time.sleep(PERIOD_S)
    return found


def check_that_it_survived(container: Container, scraped: list[dict[str, float]]) -> None:
    logs = container.logs()
    assert container.cgroup.oom_kills() == 0, logs
    assert scraped[-1]["gomp_p_restarts_total"] == 0, logs
    assert container.cgroup.peak() <= MEMORY
    assert container.client.get("/readyz").status_code == 200
    assert "SIGBUS" not in logs
    wait_until_roomy(container)
    container.verify()  # which takes more than is left, until the service has made room for it
    assert container.cgroup.oom_kills() == 0, container.logs()


def wait_until_roomy(container: Container) -> None:
    """Nobody asks for it, or allocates."""
    deadline = time.monotonic() + ROOMY_S
    while container.cgroup.level.usage() > ROOMY:
        assert time.monotonic() < deadline, f"{container.cgroup.level.usage() / MIB:.1f} MiB are charged"
        time.sleep(PERIOD_S)


def check_that_the_limit_is_the_cgroups(container: Container, scraped: list[dict[str, float]]) -> None:
    logs = container.logs()
    assert re.search(r"memory_limit is [\d.]+ MiB: auto is 0\.9 of the cgroup's 256\.0 MiB, less [\d.]+ MiB", logs), (
        logs
    )
    assert "memory_limit is off" not in logs
    limits = [samples["go_gc_gomemlimit_bytes"] for samples in scraped]
    assert 64 * MIB <= min(limits) <= max(limits) < 0.9 * MEMORY
    assert "the heap is in a memfd" in logs, "/dev/shm has less than max_heap"


# --- short, of this machine -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def container(compiled_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    if not COMPILED:
        pytest.skip("runs services, which run compiled kernels")
    needs_podman()
    config = write_config(tmp_path_factory.mktemp("limited"), "containers.in_turn", seconds=SHORT_S)
    running = Container.of_this_machine(config, MEMORY)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.remove()


def test_a_service_survives_every_misuse_of_memory_in_a_container(container: Container) -> None:
    scraped = scrape_until_ended(container, OVERTIME_S)
    check_that_the_limit_is_the_cgroups(container, scraped)
    check_that_it_survived(container, scraped)
    assert "the leak has ended with gomp.OutOfMemory" in container.logs()


def test_the_kernel_would_kill_ps_first_and_the_coordinator_last(container: Container) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    children = container.children().items()
    ps = [pid for pid, name in children if name.startswith("gomp-p")]
    assert len(ps) >= 2
    assert {score(pid) for pid in ps} == {score(container.pid) + 1000}
    assert [score(pid) for pid, name in children if name == "gomp-service"] == [score(container.pid) + 750]


def test_the_first_process_reaps_what_others_leave(container: Container) -> None:
    container.exec("/bin/sh", "-c", "sleep 0.3 & exit 0")
    deadline = time.monotonic() + REAPED_S
    seen = set()
    while "sleep" in (names := set(container.children().values())) or "sleep" not in seen:
        seen |= names
        assert time.monotonic() < deadline, (seen, names)
        time.sleep(0.01)


def test_sigterm_ends_it_cleanly(container: Container) -> None:
    code, seconds = container.end()
    assert code == "0", container.logs()
    assert seconds < END_S


# --- two minutes each, of the image -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ramp", "burst_idle", "thrash", "sawtooth", "leak"])
def test_the_image_survives_two_minutes_of(image: str, tmp_path: Path, program: str) -> None:
    running = Container(image, write_config(tmp_path, f"stress.{program}", seconds=LONG_S), MEMORY)
    try:
        running.wait_until_ready()
        scraped = scrape_until_ended(running, LONG_S + OVERTIME_S)
        check_that_the_limit_is_the_cgroups(running, scraped)
        check_that_it_survived(running, scraped)
        assert (OUT_OF_MEMORY in running.logs()) == (program == "leak")
        charges = [samples["gomp_cgroup_memory_usage_bytes"] / MIB for samples in scraped]
        print(
            f"{program}: {len(scraped)} scrapes, peak charge {running.cgroup.peak() / MIB:.1f} MiB, "
            f"median {sorted(charges)[len(charges) // 2]:.1f} MiB, {scraped[-1]['go_gc_cycles_total_gc_cycles_total']:.0f} cycles, "
            f"{(scraped[-1]['go_memstats_alloc_bytes_total']) / MIB:.0f} MiB allocated"
        )
        code, seconds = running.end()
        assert (code, seconds < END_S) == ("0", True), running.logs()
    finally:
        running.remove()
