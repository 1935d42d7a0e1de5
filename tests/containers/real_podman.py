"""Containers for tests, by podman: the Dockerfile's image, or this machine's own Python and sources in an image with nothing in it.

Where podman cannot run a container with a limit, :func:`needs_podman` skips with the reason.
"""

from __future__ import annotations

import functools
import io
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from gomp.cgroup import MemoryCgroup
from gomp.core.jit import cache_directory
from gomp.stress.cgroup import OwnCgroup
from gomp.stress.service import summed

ROOT = Path(__file__).parent.parent.parent
BARE = "localhost/gomp-bare"
START_S = 90
_OF_THE_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
_RUN = ("--cgroup-manager=cgroupfs", "run")


def podman(
    *arguments: str | Path, timeout: float = 60, check: bool = True, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*map(str, ("podman", *arguments))]
    # When the kernel kills in a container, podman's monitor leaves a file named oom in the directory that it was started from.
    elsewhere = tempfile.gettempdir()
    done = subprocess.run(command, capture_output=True, timeout=timeout, check=False, input=stdin, cwd=elsewhere)
    said = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{said.stdout[-2000:]}{said.stderr[-2000:]}"
    return said


@functools.cache
def why_not() -> str:
    """What keeps podman from running limited containers here; "" if nothing does."""
    if not shutil.which("podman"):
        return "podman is not installed"
    probe = podman("info", check=False)
    if probe.returncode:
        return f"podman does not work here: {probe.stderr.strip()[-200:]}"
    make_bare_image()
    probe = podman(*_runtime(), *_RUN, "--rm", *_options(256 << 20), *_machine(), BARE, "/usr/bin/true", check=False)
    return f"podman cannot run a container with a limit: {probe.stderr.strip()[-300:]}" if probe.returncode else ""


def needs_podman() -> None:
    if reason := why_not():
        pytest.skip(reason)


def make_bare_image() -> None:
    """An image with a /tmp and nothing else: what runs in it is mounted from this machine."""
    if podman("image", "exists", BARE, check=False).returncode == 0:
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    podman("import", "-", BARE, stdin=packed.getvalue())


class Container:
    """One that runs ``gomp serve`` with this configuration, and is seen from outside: its metrics, its log, its cgroup."""

    def __init__(self, image: str, config: Path | None, memory: int, command: Sequence[str | Path] = ()) -> None:
        """``command`` is for an image that has none. Where no ``config`` is given, the image's own is used."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = ("-v", f"{config}:/service.toml:ro") if config else ()
        machine = _machine() if command else ()
        self.id = podman(
            *_runtime(), *_RUN, "--detach", *_options(memory), "--env", f"GOMP_METRICS_PORT={port}", *settings, *machine,
            image, *command, *(("--config", "/service.toml") if config else ()),
        ).stdout.split()[-1]  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False)
        self._python = command[:1] or ("python",)

    @classmethod
    def of_this_machine(cls, config: Path, memory: int) -> Container:
        """With the sources and the compiled kernels of this run of the tests."""
        return cls(BARE, config, memory, (sys.executable, "-m", "gomp", "serve"))

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
        """By name, those of several summed; empty if there was no answer."""
        try:
            return summed(self.client.get("/metrics").text)
        except httpx.TransportError:
            return {}

    def logs(self) -> str:
        done = podman("logs", self.id)
        return done.stdout + done.stderr

    @functools.cached_property
    def pid(self) -> int:
        """Of its first process, as this machine numbers it."""
        return int(podman("inspect", "--format", "{{.State.Pid}}", self.id).stdout)

    @functools.cached_property
    def cgroup(self) -> OwnCgroup:
        own = MemoryCgroup.of_this_process(Path(f"/proc/{self.pid}")).own()
        assert own, "a container with a limit has a memory cgroup"
        return OwnCgroup(own.directory, (own.directory / "memory.max").exists())

    def children(self) -> dict[int, str]:
        """Names of those of its first process, by this machine's numbers; those that ended and were not reaped are among them."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in found}

    def exec(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return podman("exec", self.id, *command, check=check)

    def verify(self) -> None:
        """The runtime goes on, and its heap verifies."""
        self.exec(*self._python, "-m", "gomp", "verify")

    def end(self) -> tuple[str, float]:
        """As an orchestrator does: SIGTERM to the first process. The exit code, and the seconds it took."""
        began = time.monotonic()
        podman("kill", "--signal=TERM", self.id)
        code = podman("wait", self.id).stdout.strip()
        return code, time.monotonic() - began

    def remove(self) -> None:
        self.client.close()
        podman("rm", "--force", "--time=2", self.id, check=False)


def _runtime() -> tuple[str, ...]:
    """crun, which podman prefers, refuses hybrid hierarchies of cgroups."""
    return ("--runtime", "runc") if shutil.which("runc") else ()


def _options(memory: int) -> tuple[str, ...]:
    """podman's own defaults for processes and files may be above what this process is allowed to give."""
    files, tasks = (
        min(resource.getrlimit(of)[1], most)
        for of, most in ((resource.RLIMIT_NOFILE, 20_000), (resource.RLIMIT_NPROC, 4_000))
    )
    return (
        "--network=host",
        f"--memory={memory}",
        f"--ulimit=nofile={files}:{files}",
        f"--ulimit=nproc={tasks}:{tasks}",
    )


def _machine() -> tuple[str, ...]:
    """This machine's programs and these sources, read-only, and the cache of compiled kernels."""
    paths = [*map(Path, _OF_THE_SYSTEM), Path(sys.base_prefix), Path(sys.prefix), ROOT]
    needed = [path for path in paths if path.exists() and not any(path.is_relative_to(other) for other in paths if other != path)]  # fmt: skip
    cache = cache_directory().parent
    return (
        *(word for path in dict.fromkeys(needed) for word in ("-v", f"{path}:{path}:ro")),
        "-v", f"{cache}:{cache}", "--env", f"GOMP_CACHE_DIR={cache}", "--env", f"PYTHONPATH={ROOT / 'tests'}",
        "--env", "PYTHONDONTWRITEBYTECODE=1", "--workdir", "/tmp",
    )  # fmt: skip


# --- the Dockerfile's image -------------------------------------------------------------------------------------------

IMAGE, MADE_BASE, USUAL_BASE = "localhost/gomp-test", "localhost/gomp-base", "docker.io/library/python:3.13-slim"
BUILD_S = 1200


def build_image() -> None:
    certificate = os.environ.get("PIP_CERT")
    environment = ["--env", f"PIP_CERT={certificate}"] if certificate else []
    # A health check is part of docker's format and not of OCI's.
    podman("build", "--format", "docker", "--network=host", "--isolation=chroot", "--build-arg", f"BASE={_find_base()}",
           *_pip_mounts(), *environment, "-t", IMAGE, ROOT, timeout=BUILD_S)  # fmt: skip


def _find_base() -> str:
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
    return _make_base()


def _make_base() -> str:
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


def _pip_mounts() -> list[str]:
    """This machine's pip configuration and the files that it names, so that pip finds its packages in the build as well."""
    command = [sys.executable, "-m", "pip", "config", "debug"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [Path(path) for path in re.findall(r"(?:file://)?(/[\w./-]+)", listed)]
    named = {path.parent if path.name == "simple" else path for path in found}  # an index leads to files beside it
    paths = sorted(path for path in named if path.exists() and not path.is_relative_to(sys.prefix))
    return [argument for path in paths for argument in ("-v", f"{path}:{path}:ro")]
