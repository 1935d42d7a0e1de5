"""What the operating system says of a runtime's processes: coordinator, Ps and service; not scripts, which have other things in them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Places in /proc/PID/stat after the command, which ends with a parenthesis.
_UTIME, _STIME, _CUTIME, _CSTIME, _THREADS, _START, _VSIZE = 11, 12, 13, 14, 17, 19, 20


@dataclass(frozen=True)
class Usage:
    """Of all those processes together. A limit that there is not is 2**64 - 1, as Go's client has it."""

    cpu_s: float
    open_fds: int
    max_fds: int
    virtual_bytes: int
    max_virtual_bytes: int
    threads: int
    start_unix_s: float  # of the coordinator
    received_bytes: int  # in this network namespace
    sent_bytes: int


@dataclass
class UsageReader:
    """Reads it. What counts never goes back: CPU time is that of those which have ended, too, and processes end while it is read; what cannot be
    read just now, because descriptors are exhausted, is as it was."""

    proc: Path = Path("/proc")
    limit: Callable[[int, int], tuple[int, int]] = resource.prlimit
    _most_cpu_s: float = field(default=0.0, init=False)
    _last_network: tuple[int, int] = field(default=(0, 0), init=False)
    _last: Usage | None = field(default=None, init=False)

    def read(self, coordinator: int, others: Sequence[int]) -> Usage | None:
        """None if there is no such coordinator."""
        try:
            self._last = self._read(coordinator, others)
        except OSError:
            if self._last is not None:
                open_fds = sum(self._open_fds(pid) for pid in (coordinator, *others))
                self._last = replace(self._last, open_fds=open_fds or self._last.open_fds)
        return self._last

    def _read(self, coordinator: int, others: Sequence[int]) -> Usage | None:
        """Raises OSError where descriptors are exhausted."""
        own = self._stat(coordinator)
        if own is None:
            return None
        stats = {coordinator: own} | {pid: found for pid in others if (found := self._stat(pid))}
        ticks = own[_CUTIME] + own[_CSTIME] + sum(s[_UTIME] + s[_STIME] for s in stats.values())
        self._most_cpu_s = max(self._most_cpu_s, ticks / _TICKS)
        received, sent = self._last_network = self._network(coordinator)
        return Usage(
            cpu_s=self._most_cpu_s,
            open_fds=sum(self._open_fds(pid) for pid in stats),
            max_fds=sum(self._soft_limit(pid, resource.RLIMIT_NOFILE) for pid in stats),
            virtual_bytes=sum(s[_VSIZE] for s in stats.values()),
            max_virtual_bytes=self._soft_limit(coordinator, resource.RLIMIT_AS),
            threads=sum(s[_THREADS] for s in stats.values()),
            start_unix_s=self._booted_unix_s() + own[_START] / _TICKS,
            received_bytes=received,
            sent_bytes=sent,
        )

    def _stat(self, pid: int) -> list[int] | None:
        try:
            text = (self.proc / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return [int(word) if word.lstrip("-").isdigit() else 0 for word in text[text.rindex(")") + 2 :].split()]

    def _open_fds(self, pid: int) -> int:
        """Asked for without opening anything: it is to be right where descriptors are exhausted."""
        directory = self.proc / str(pid) / "fd"
        try:
            return directory.stat().st_size or len(os.listdir(directory))  # its size says it since Linux 6.2
        except OSError:
            return 0

    def _soft_limit(self, pid: int, which: int) -> int:
        try:
            soft = self.limit(pid, which)[0]
        except (OSError, ValueError):
            return 0
        return (1 << 64) - 1 if soft == resource.RLIM_INFINITY else soft

    def _booted_unix_s(self) -> float:
        for line in (self.proc / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
        return 0.0

    def _network(self, pid: int) -> tuple[int, int]:
        """Bytes of the protocol IP, in and out."""
        try:
            lines = (self.proc / str(pid) / "net/netstat").read_text().splitlines()
        except OSError:
            return self._last_network
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if names.startswith("IpExt:"):
                found = dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
                return found.get("InOctets", 0), found.get("OutOctets", 0)
        return self._last_network
