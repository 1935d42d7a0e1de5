"""Children of a process that has loaded all kernels and nothing else: each begins at once, where a new interpreter takes seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Child:
    """One of them. What it has written to stdout and stderr is read as of a ``subprocess.Popen``."""

    server: Server
    pid: int
    stdout: TextIO
    stderr: TextIO
    returncode: int | None = field(default=None, init=False)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask({"wait": self.pid})
        return self.returncode

    def communicate(self, timeout: float = 30.0) -> tuple[str, str]:
        """All that it writes; returns when it has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.002)
        with self.stdout, self.stderr:
            return self.stdout.read(), self.stderr.read()


class Server:
    """The process that they are forked from. ``module`` has the function ``main(arguments)`` that each runs."""

    def __init__(self, module: str) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            program = f"from tests.forked_children import serve; serve({theirs.fileno()}, {module!r})"
            self._process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])

    def start(self, *arguments: object) -> Child:
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        pid = self.ask({"start": [str(argument) for argument in arguments]}, [out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        return Child(self, pid, os.fdopen(out), os.fdopen(err))

    def ask(self, request: dict[str, Any], descriptors: list[int] | None = None) -> Any:
        socket.send_fds(self._sock, [json.dumps(request).encode()], descriptors or [])
        return json.loads(self._sock.recv(1 << 16))

    def close(self) -> None:
        self._sock.close()
        self._process.wait(30)


def serve(fd: int, module: str) -> None:
    import importlib

    from gomp.kernels import load_all_kernels

    load_all_kernels()
    main: Callable[[list[str]], None] = importlib.import_module(module).main
    sock = socket.socket(fileno=fd)
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, 1 << 16, 2)
        if not data:
            return
        request = json.loads(data)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            sock.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
            continue
        pid = os.fork()
        if pid == 0:
            sock.close()
            for number, descriptor in enumerate(descriptors, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return main(request["start"])  # and then this interpreter ends as any does
        for descriptor in descriptors:
            os.close(descriptor)
        sock.send(json.dumps(pid).encode())
