"""``gomp top`` of a running runtime: text and JSON for scripts, a screen that moves for people, and the terminal as it was afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import termios
import time

import pytest
from pseudo_terminal import OnTerminal

import gomp
from gomp import cli
from gomp.core import COMPILED
from gomp.runtime import looking

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

PROCS = 2
SHOWS_ANOTHER_SCREEN, SHOWS_THE_FIRST_AGAIN = "\x1b[?1049h", "\x1b[?1049l"


@gomp.struct
class Node:
    next: Node


@gomp.compiled
def litter(n: int) -> None:
    for _ in range(n):
        gomp.new(Node)


def litter_until(file: str) -> None:
    while not os.path.exists(file):
        litter(20_000)
        time.sleep(0.01)


def gomp_process(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gomp", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rt():
    """Which the last test ends."""
    with gomp.Runtime(procs=PROCS, max_heap="256MiB") as runtime:
        yield runtime


class Shown:
    """What several commands have shown while a program ran; they run at the same time."""

    def __init__(self, rt, stack, end):
        rt.run(litter, 1)
        call = rt.go(litter_until, str(end))
        self.before = rt.stats()
        of = ("top", rt.name, "--interval", "0.4")
        self.live, self.suspended, self.longest, self.dumb = (
            stack.enter_context(contextlib.closing(OnTerminal(*of, TERM=kind))) for kind in (*["xterm"] * 3, "dumb")
        )
        commands = [
            gomp_process(*of, "--json"),
            gomp_process(*of, "--json", "--metric", "*"),
        ]
        self.piped = gomp_process(*of, "--once", "--metric", "*")
        self.piped.stdout.close()
        done = [command.communicate(timeout=60) for command in commands]
        assert [(command.returncode, err) for command, (_, err) in zip(commands, done, strict=True)] == [(0, "")] * 2
        self.figures, self.metrics = (json.loads(out) for out, _ in done)
        self.screens = self.live.wait_for_screens(3)
        end.touch()
        call.wait()
        self.after = rt.stats()


@pytest.fixture(scope="module")
def shown(rt, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Shown(rt, stack, tmp_path_factory.mktemp("top") / "end")


def test_the_figures_lie_between_what_the_statistics_say_before_and_after(rt, shown):
    found, before, after = shown.figures, shown.before, shown.after
    assert found["runtime"] == rt.name
    assert found["interval_s"] >= 0.4
    assert before.num_gc <= found["cycles"]["count"] <= after.num_gc
    assert before.total_alloc <= found["heap"]["allocated"] <= after.total_alloc
    assert {p["name"]: p["pid"] for p in found["ps"]} == {
        "coordinator" if p == after.ps[-1] else f"P{p.idx}": p.pid for p in after.ps
    }
    assert found["settings"] == {
        "gogc": 100, "memory_limit": None, "memory_limit_is_auto": False, "procs": PROCS, "procs_are_auto": False
    }  # fmt: skip


def test_rates_are_those_of_the_interval_and_looks_fill_it(shown):
    found = shown.figures
    assert found["rates"]["mallocs"] > 1000
    assert found["rates"]["allocated"] >= 8 * found["rates"]["mallocs"]
    assert all(0 <= share <= 1 for share in found["rates"]["cpu"].values())
    assert {*"".join(p["did"] for p in found["ps"])} <= {*"gsamoirpw"}
    assert all(1 <= len(p["did"]) <= 9 for p in found["ps"])
    numbers = [cycle["number"] for cycle in found["last_cycles"]]
    assert numbers == sorted(set(numbers))


def test_a_dumb_terminal_gets_one_reading_as_text_of_80_columns(rt, shown):
    assert shown.dumb.wait() == 0
    assert "\x1b" not in shown.dumb.text
    lines = shown.dumb.text.splitlines()
    assert lines[0].startswith(f"{rt.name}  ")
    assert "2 Ps  GOGC 100  limit off" in lines[0]
    assert [line.split()[0] for line in lines if line[:1].isalpha()][:11] == [
        rt.name, "heap", "memory", "GC", "cycles", "alloc", "P", "P0", "P1", "P2", "coordinator"
    ]  # fmt: skip
    assert [line for line in lines if len(line) > 80] == []


def test_every_metric_of_the_table_is_there_with_its_values(shown):
    found = {(row["name"], *row["labels"].values()): row for row in shown.metrics["metrics"]}
    expected = gomp.metrics.read(*(metric.name for metric in gomp.metrics.all()))
    for metric in gomp.metrics.all():
        if metric.name in expected:
            value = expected[metric.name]
            for label in value if isinstance(value, dict) else [None]:
                row = found[(metric.name,) if label is None else (metric.name, label)]
                assert (row["kind"], row["unit"]) == (metric.kind, metric.unit)
                assert (row["rate"] is None) == (metric.kind == "gauge")
    assert found["/gc/heap/allocs:objects",]["rate"] > 1000
    pauses = found["/sched/pauses/total/gc:seconds",]
    assert 0 < pauses["value"]["quantiles"]["0.5"] <= pauses["value"]["quantiles"]["0.99"]
    assert pauses["value"]["count"] >= 2 * (shown.before.num_gc)


def test_on_a_terminal_the_figures_move_and_fill_it(shown):
    live = shown.live
    assert live.text.startswith(SHOWS_ANOTHER_SCREEN)
    ups = [up_of(screen) for screen in shown.screens]
    assert len(set(ups)) == len(ups) >= 3
    assert not live.modes()[3] & termios.ECHO
    live.resize(30, 120)
    live.read_until(lambda: max(map(len, live.screens()[-1].splitlines())) == 120)


def up_of(screen):
    return screen.partition("up ")[2].partition("  ")[0]


def test_they_move_while_the_coordinator_is_stopped(shown):
    os.kill(shown.figures["ps"][-1]["pid"], signal.SIGSTOP)
    try:
        ups = [up_of(screen) for screen in shown.live.wait_for_screens(3)]
        assert len(set(ups)) == len(ups) >= 3
    finally:
        os.kill(shown.figures["ps"][-1]["pid"], signal.SIGCONT)


def test_q_ends_it_and_the_terminal_is_as_it_was(shown):
    live = shown.live
    live.send(b"q")
    assert live.wait() == 0
    assert live.modes() == live.modes_before
    assert SHOWS_THE_FIRST_AGAIN in live.text[-20:]


def test_ctrl_z_gives_the_terminal_back_meanwhile_and_ctrl_c_for_good(shown):
    live = shown.suspended
    live.wait_for_screens(1)
    live.send(b"\x1a")
    live.read_until(lambda: _state(live.process.pid) == "T")
    assert live.modes() == live.modes_before
    live.process.send_signal(signal.SIGCONT)
    live.read_until(lambda: live.modes() != live.modes_before)
    live.wait_for_screens(1)
    live.send(b"\x03")
    assert live.wait() == 0
    assert live.modes() == live.modes_before
    assert live.text.count(SHOWS_ANOTHER_SCREEN) == live.text.count(SHOWS_THE_FIRST_AGAIN) == 2


def _state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_a_closed_pipe_ends_it_quietly(shown):
    with shown.piped.stderr as errors:
        assert (shown.piped.wait(60), errors.read()) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interval", "0"], "interval=0: give seconds from 0.1 to 3600"),
        (["--interval", "nan"], "interval=nan: give seconds from 0.1 to 3600"),
        (["--interval", "soon"], "interval=soon: give seconds from 0.1 to 3600"),
        (["--interval", "1e9"], "interval=1e9: give seconds from 0.1 to 3600"),
        (["--metric", "go_*", "--metric", "nope*"], "no metric is called 'nope*': --metric '*' shows all there are"),
        (["nobody"], "no runtime named nobody is running: `gomp ls` lists them"),
    ],
)
def test_what_the_user_got_wrong_is_one_line(arguments, message, capsys):
    assert cli.run_command(["top", *arguments]) == 2
    assert capsys.readouterr() == ("", f"gomp: {message}\n")


def test_a_runtime_of_another_version_is_refused(rt, monkeypatch, capsys):
    monkeypatch.setattr(looking, "layout_version", lambda: 0)
    assert cli.run_command(["top", rt.name]) == 2
    assert f"the runtime {rt.name} is of another version of gomp: use the gomp" in capsys.readouterr().err


def test_without_a_runtime_it_says_how_to_start_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert cli.run_command(["top"]) == 2
    assert capsys.readouterr().err == "gomp: no runtime is running: start one with `gomp serve`\n"


def test_the_end_of_the_runtime_is_one_line(rt, shown):
    assert rt.verify(3).startswith("verified")
    shown.longest.wait_for_screens(1)
    rt.close()
    assert shown.longest.wait() == 1
    assert shown.longest.text.endswith(f"{SHOWS_THE_FIRST_AGAIN}\x1b[?25hgomp: the runtime {rt.name} has ended\r\n")
    assert shown.longest.modes() == shown.longest.modes_before
