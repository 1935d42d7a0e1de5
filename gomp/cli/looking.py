"""Commands that look at a runtime which runs, or at what one has written."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from gomp.cli.options import AsJson
from gomp.cli.output import EXIT_INTERRUPTED, print_table
from gomp.errors import ConfigError, HeapCorrupt

_MOST_OF_A_COMMAND = 40  # characters


def list_(as_json: AsJson = False) -> int:
    """List this user's runtimes, and each process that is attached to one in a line."""
    from gomp.runtime.discovery import list_runtimes
    from gomp.runtime.units import format_bytes

    runtimes = [asdict(runtime) for runtime in list_runtimes()]
    if as_json:
        print(json.dumps({"runtimes": runtimes}))
        return 0
    rows = []
    for r in runtimes:
        first, *others = [_described(pid) for pid in r["attached"]] or [""]
        rows.append((r["name"], str(r["ps"]), format_bytes(r["heap_bytes"]), str(r["pid"]), first))
        rows += [("", "", "", "", other) for other in others]
    print_table(("NAME", "PS", "HEAP", "PID", "ATTACHED"), rows)
    return 0


def _described(pid: int) -> str:
    """The process, with what it was started as."""
    return f"{pid} ({shlex.join(_arguments(pid))[:_MOST_OF_A_COMMAND]})"


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:  # it has left meanwhile
        return ["?"]


def top(
    name: Annotated[str | None, typer.Argument(help="which runtime; the only one running, if left out")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="show metrics whose names fit instead, as 'gomp_p_*'; may be repeated"),
    ] = None,
    interval: Annotated[str, typer.Option(metavar="SECONDS", help="between two readings")] = "1",
    once: Annotated[bool, typer.Option("--once", help="one reading after one interval, as text")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the same as one JSON object")] = False,
) -> int:
    """Show what a running runtime does; q ends it."""
    from gomp.top.command import show

    return show(name, metric or [], interval, once, as_json)


def verify(
    name: Annotated[str | None, typer.Argument(help="which runtime; the only one running, if left out")] = None,
    level: Annotated[
        int, typer.Option(min=1, max=3, help="1 counters, 2 and structures, 3 and a trace from the roots")
    ] = 3,
) -> int:
    """Walk the heap of a running runtime and prove it consistent."""
    from gomp.runtime import discovery

    with discovery.connect(name) as client:
        found = client.verify(level)
    problems = found["problems"]
    if isinstance(problems, list) and problems:
        print(*problems, sep="\n")
        raise HeapCorrupt(f"{len(problems)} problems in {client.info.name}")
    figures = ", ".join(
        f"{value:,} {name}" for name, value in found.items() if isinstance(value, int) and name != "level"
    )
    print(f"{client.info.name}: verified at level {level}: {figures}")
    return 0


def trace(
    file: Annotated[Path, typer.Option("--output", "-o", help="where it goes, - for stdout; ui.perfetto.dev opens it")],
    name: Annotated[str | None, typer.Argument(help="which runtime; the only one running, if left out")] = None,
    seconds: Annotated[str, typer.Option(help="for how long; Ctrl-C ends it before")] = "5",
) -> int:
    """Record what every P of a running runtime does."""
    from gomp.runtime.discovery import choose
    from gomp.runtime.traces import Recording, check_seconds

    length, info = check_seconds(seconds), choose(name)
    with _open_to_write(file) as out:
        recording = Recording(info, length, maps=True)
        if out is not sys.stdout and file.is_file():
            out.truncate(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: recording.stop())
        out.writelines(recording.pieces())
    print(f"{file}: {recording.summary()}", file=sys.stderr)
    return EXIT_INTERRUPTED if recording.was_stopped else 0


def _open_to_write(file: Path) -> AbstractContextManager[TextIO]:
    """What is there stays until there is something to take its place; - is stdout. Raises ConfigError."""
    if str(file) == "-":
        return contextlib.nullcontext(sys.stdout)
    try:
        return file.open("a", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None


def gctrace(
    file: Annotated[str, typer.Argument(help="what a program with GODEBUG=gctrace=1 wrote, Go's or ours; - for stdin")],
    last: Annotated[int, typer.Option(min=1, help="how many cycles the table has")] = 20,
    as_json: AsJson = False,
) -> int:
    """Read gctrace lines: a table, a plot and what they come to."""
    from gomp import gctracereport
    from gomp.runtime.gctracefile import read_file

    name = "stdin" if file == "-" else file
    try:
        with sys.stdin if file == "-" else open(file, encoding="utf-8", errors="replace") as lines:
            found = read_file(lines, name)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    if found.left_out:
        print(f"gomp: {name}: {found.complaint()}", file=sys.stderr)
    if as_json:
        print(json.dumps(gctracereport.to_json(found)))
        return 0
    for i, cycles in enumerate(found.runs, 1):
        gctracereport.show(cycles, last, f"run {i} of {len(found.runs)}" if len(found.runs) > 1 else "")
    return 0
