"""``gomp top``: one reading for whoever wants text or JSON, or one after the other on a terminal until somebody has enough."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.text import Text

from gomp.errors import ConfigError
from gomp.runtime import discovery
from gomp.runtime.looking import Look
from gomp.runtime.metrics.samples import matching
from gomp.top import metrics, view
from gomp.top.readings import LOOK_S, Reading, Readings
from gomp.top.terminal import Terminal

LEAST_INTERVAL_S, MOST_INTERVAL_S = 0.1, 3600.0
_FIRST_S = 0.2  # until something is on the screen


def check_interval(text: str) -> float:
    """Seconds between two readings. Raises ConfigError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not LEAST_INTERVAL_S <= seconds <= MOST_INTERVAL_S:
        raise ConfigError(f"interval={text[:40]}: give seconds from {LEAST_INTERVAL_S} to {MOST_INTERVAL_S:.0f}")
    return seconds


def show(name: str | None, patterns: Sequence[str], interval: str, once: bool, as_json: bool) -> int:
    """The exit code. Raises ConfigError, RuntimeLost."""
    interval_s, chosen, info = check_interval(interval), matching(patterns), discovery.choose(name)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars and arrows are not in every encoding
    console = Console(highlight=False)
    is_live = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    with closing(Look(info)) as look:
        readings = Readings(look, info, chosen)
        if once or as_json or not is_live:
            reading = _after(readings, interval_s)
            print(json.dumps(to_json(reading)) if as_json else _plain(reading, console.width), flush=True)
            return 0
        try:
            _follow(readings, interval_s, console)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone, and with it whom to tell
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _after(readings: Readings, interval_s: float) -> Reading:
    end_s = time.monotonic() + interval_s
    while (left_s := end_s - time.monotonic()) > 0:
        readings.look()
        time.sleep(min(left_s, LOOK_S))
    return readings.read()


def _follow(readings: Readings, interval_s: float, console: Console) -> None:
    due_s, reading, drawn_for = time.monotonic() + min(interval_s, _FIRST_S), None, (0, 0)
    with Terminal(console) as terminal:
        while not terminal.is_over:
            readings.look()
            now_s = time.monotonic()
            if now_s >= due_s:
                due_s = max(due_s + interval_s, now_s)
                reading, drawn_for = readings.read(), (0, 0)
            if reading is not None and terminal.size != drawn_for:
                drawn_for = terminal.size
                terminal.show(lines_of(reading, *drawn_for))
            terminal.wait(LOOK_S)


def lines_of(reading: Reading, width: int, height: int | None) -> list[Text]:
    """The figures of the runtime, or else the metrics that were asked for."""
    if reading.metrics is not None:
        room = None if height is None else height - 2
        return [view.head(reading), Text(), *metrics.of_rows(reading.metrics, room)]
    return view.of_reading(reading, width, height)


def _plain(reading: Reading, width: int) -> str:
    """As text; with a line as long as it is."""
    return "\n".join(line.plain.rstrip() for line in lines_of(reading, max(width, view.LEAST_WIDTH), None))


def to_json(reading: Reading) -> dict[str, Any]:
    """The same in what JSON can hold."""
    about = {"runtime": reading.name, "interval_s": reading.interval_s}
    if reading.metrics is not None:
        return about | {"now": reading.figures["now"], "metrics": [row.to_json() for row in reading.metrics]}
    return about | reading.figures | {"rates": reading.rates, "last_cycles": list(reading.cycles)}
