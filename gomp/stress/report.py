"""What a stress run came to: in numbers, as text, as JSON, and as one picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gomp.config import NO_LIMIT
from gomp.errors import ConfigError

_MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One look. Bytes, but ``t`` in seconds; CPU time in seconds and counts are totals since the start."""

    t: float
    charge: int  # of the cgroup
    resident: int  # of the heap
    mapped: int  # what the memory limit counts
    released: int
    goal: int
    live: int  # that the last cycle found
    allocated: int
    gc_cpu_s: float
    cycles: int
    limit: int
    procs: int
    ended: int  # programs that have
    deaths: int  # of processes of Ps
    returned: int  # to the system, ever


@dataclass(frozen=True)
class Report:
    """Of one program in one cgroup. ``peak_charge`` is the kernel's; ``return_s`` None: not all came back while it was waited for."""

    program: str
    memory: int
    memory_limit: int | None
    seconds: float
    procs: int
    peak_charge: int
    oom_kills: int
    deaths: int
    scrape_failures: int
    error: str  # what the program raised; "" if nothing
    went_on: bool  # afterwards the service collected, and its heap verified
    released: int  # bytes returned to the system, ever
    return_s: float | None  # from the end of the program until the heap was back to nearly nothing
    samples: tuple[Sample, ...]  # while it ran, and until its memory was back or no longer waited for

    @property
    def run(self) -> tuple[Sample, ...]:
        """The samples until the program ended."""
        return tuple(sample for sample in self.samples if not sample.ended) or self.samples

    @property
    def gc_share(self) -> float:
        """CPU time of collection by that of the Ps, while the program ran."""
        first, last = self.run[0], self.run[-1]
        return (last.gc_cpu_s - first.gc_cpu_s) / max((last.t - first.t) * self.procs, 1e-9)

    @property
    def throughput(self) -> float:
        """Bytes allocated a second while the program ran, pauses of its own included."""
        first, last = self.run[0], self.run[-1]
        return (last.allocated - first.allocated) / max(last.t - first.t, 1e-9)

    @property
    def rates(self) -> list[float]:
        """Bytes allocated a second while the program ran, from sample to sample."""
        pairs = zip(self.run, self.run[1:], strict=False)
        return [(b.allocated - a.allocated) / max(b.t - a.t, 1e-9) for a, b in pairs]

    @property
    def gc_shares(self) -> list[float]:
        """As :attr:`gc_share`, from sample to sample."""
        pairs = zip(self.run, self.run[1:], strict=False)
        return [(b.gc_cpu_s - a.gc_cpu_s) / max((b.t - a.t) * self.procs, 1e-9) for a, b in pairs]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"gc_share": self.gc_share, "bytes_per_s": self.throughput}

    def text(self) -> str:
        """For people, a line a figure."""
        rates = self.rates or [0.0]
        back = "not within the time" if self.return_s is None else f"{self.return_s:.1f} s"
        lines = {
            "program": f"{self.program}, {self.seconds:.0f} s in a cgroup of {self.memory / _MIB:.0f} MiB",
            "memory limit": "none" if self.memory_limit is None else f"{self.memory_limit / _MIB:.1f} MiB",
            "peak charge": f"{self.peak_charge / _MIB:.1f} MiB ({100 * self.peak_charge / self.memory:.0f}%)",
            "kills": f"{self.oom_kills} by the kernel for want of memory, {self.deaths} processes of Ps have died",
            "scrapes": f"{len(self.samples)}, {self.scrape_failures} of all were not answered",
            "ended with": self.error or "no error",
            "afterwards": "the service went on, and its heap verified" if self.went_on else "the service did not go on",
            "GC CPU": f"{100 * self.gc_share:.1f}% in {self.run[-1].cycles} cycles",
            "throughput": f"{self.throughput / _MIB:.0f} MiB/s, from {min(rates) / _MIB:.0f} to {max(rates) / _MIB:.0f}",
            "returned": f"{self.released / _MIB:.0f} MiB in all",
            "time to return": back,
        }
        width = max(map(len, lines))
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items())


def check_drawable(file: Path) -> None:
    """Raise ConfigError if :func:`draw` could not write ``file``: to be asked before the run that is to be drawn. An old file stays as it is."""
    if find_spec("matplotlib") is None:
        raise ConfigError("a picture needs matplotlib: pip install 'gomp[plot]'")
    existed = file.exists()
    try:
        file.open("ab").close()
        if not existed:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None


def draw(report: Report, file: Path) -> None:
    """Memory above, throughput below, over time. Raises ConfigError. :func:`check_drawable` has been asked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    memory, speed = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _draw_memory(memory, report)
    _draw_speed(speed, report)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(
        f"{report.program} in {report.memory / _MIB:.0f} MiB: {report.oom_kills} OOM kills, {report.error or 'no error'}",
        fontsize="medium",
    )
    try:
        figure.savefig(file, dpi=80, format="png")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {file}: {error}") from None


def _draw_memory(memory: Any, report: Report) -> None:
    times = [sample.t for sample in report.samples]
    for name, label in (
        ("charge", "charge of the cgroup"),
        ("mapped", "counted by the memory limit"),
        ("resident", "heap in memory"),
        ("goal", "goal of the next cycle"),
        ("live", "live at the last cycle"),
    ):
        memory.plot(times, [getattr(sample, name) / _MIB for sample in report.samples], label=label, linewidth=1)
    memory.axhline(report.memory / _MIB, color="black", linestyle="--", label="limit of the cgroup")
    limits = [(sample.t, sample.limit / _MIB) for sample in report.samples if sample.limit != NO_LIMIT]
    if limits:
        memory.step(*zip(*limits, strict=True), where="post", color="gray", linestyle=":", label="memory limit")
    memory.axvline(report.run[-1].t, color="lightgray", label="end of the program")
    memory.set_ylim(0, 1.05 * report.memory / _MIB)
    memory.set_ylabel("MiB")


def _draw_speed(speed: Any, report: Report) -> None:
    times = [sample.t for sample in report.run[1:]]
    speed.plot(times, [rate / _MIB for rate in report.rates], color="C4", linewidth=1)
    speed.set_ylim(bottom=0)
    speed.set_ylabel("MiB/s allocated", color="C4")
    speed.set_xlabel("seconds")
    share = speed.twinx()
    share.plot(times, [100 * share for share in report.gc_shares], color="C5", linewidth=1)
    share.set_ylim(0, 100)
    share.set_ylabel("GC, % of CPU", color="C5")
