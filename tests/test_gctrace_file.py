"""``gomp gctrace``: lines of Go and of ours, old and new, whatever is around them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp.cli import run_command
from gomp.errors import GompError
from gomp.gctracereport import summary_of
from gomp.runtime.gctrace import Cycle, format_cycle
from gomp.runtime.gctracefile import read_file

GO_LINES = (Path(__file__).parent / "data/gctrace/go-lines.txt").read_text().splitlines(keepends=True)
OLD = "gc 1 @0.008s 5%: 0.012+0.36+0.044 ms clock, 0.025+0.31/0.10/0.11+0.088 ms cpu, 4->5->1 MB, 5 MB goal, 8 P\n"
NEW = (
    "gc 2 @0.019s 3% (checking for goroutine leaks): 0.081+1.0+0.005 ms clock, 0.16+0/0.49/1.0+0.011 ms cpu, "
    "2->3->2 MB, 5 MB goal, 1 MB stacks, 0 MB globals, 2 P (forced)\n"
)


def read_runs(lines, name="log"):
    found = read_file(lines, name)
    assert found.left_out == 0, found.complaint()
    return found.runs


def test_lines_of_go_are_read():
    for line in GO_LINES:
        ((cycle,),) = read_runs([line], "go")
        assert line.startswith(f"gc {cycle.number} @{cycle.since_start_s:.3f}s {cycle.gc_cpu_percent}%")


def test_a_line_of_before_go_1_19_says_nothing_of_stacks_and_globals():
    ((cycle,),) = read_runs([OLD], "old")
    assert (cycle.stacks_mb, cycle.globals_mb, cycle.goal_mb, cycle.procs) == (None, None, 5, 8)
    assert (cycle.assist_ms, cycle.dedicated_ms, cycle.idle_ms) == (0.31, 0.10, 0.11)


def test_every_word_of_todays_line_is_read():
    ((cycle,),) = read_runs([NEW], "new")
    assert (cycle.heap_start_mb, cycle.heap_end_mb, cycle.live_mb, cycle.stacks_mb, cycle.globals_mb) == (2, 3, 2, 1, 0)
    assert cycle.looks_for_leaks
    assert cycle.forced
    assert cycle.gc_cpu_ms == pytest.approx(0.16 + 0 + 0.49 + 0.011)


@given(
    st.integers(1, 10**6),
    st.floats(0, 1),
    st.lists(st.integers(0, 10**12), min_size=9, max_size=9),
    st.lists(st.integers(0, 1 << 45), min_size=6, max_size=6),
    st.integers(1, 64),
    st.booleans(),
    st.booleans(),
)
def test_what_we_write_is_what_is_read(number, fraction, times, sizes, procs, forced, leaks):
    line = format_cycle(Cycle(number, times[0], fraction, *times[1:], *sizes, procs, forced, leaks))
    ((cycle,),) = read_runs([f"2026-01-01T00:00:00Z app-1 | {line}\n"], "ours")
    assert (cycle.number, cycle.procs, cycle.forced, cycle.looks_for_leaks) == (number, procs, forced, leaks)
    assert [
        cycle.heap_start_mb,
        cycle.heap_end_mb,
        cycle.live_mb,
        cycle.goal_mb,
        cycle.stacks_mb,
        cycle.globals_mb,
    ] == [size >> 20 for size in sizes]


def test_other_lines_do_not_matter_and_runs_are_told_apart():
    lines = [
        "started\n",
        OLD,
        "scav 1 KiB work (bg)\n",
        OLD.replace("gc 1", "gc 2"),
        "GC forced\n",
        OLD,
        "the end gc\n",
    ]
    assert [[cycle.number for cycle in run] for run in read_runs(lines, "log")] == [[1, 2], [1]]


HUGE = OLD.replace("4->5->1", f"{'9' * 5000}->5->1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello\n"], "log: no gctrace line in it: run the program with GODEBUG=gctrace=1"),
        ([OLD[:40] + "\n"], "log: no gctrace line in it: 1 line was left out: line 1 is no gctrace line as Go 1.6"),
        (["hello\n", HUGE, HUGE], "log: no gctrace line in it: 2 lines were left out: line 2 is"),
        ([OLD.replace("0.008s", "infs"), OLD.replace("5%", "nan%")], "2 lines were left out: line 1 is"),
        ([OLD.replace("0.36+", "1e999+")], "1 line was left out"),
    ],
)
def test_a_file_of_which_no_line_can_be_read_is_told_with_the_first(lines, message):
    with pytest.raises(GompError, match=message):
        read_file(lines, "log")


@pytest.mark.parametrize("bad", [OLD.replace("MB goal", "goal"), OLD[:40] + "\n", HUGE, OLD.replace("0.36", "9" * 400)])
def test_what_cannot_be_read_is_left_out_and_said(bad, tmp_path, capsys):
    """Two processes have written at once, or a log was cut: whatever is whole is shown."""
    path = tmp_path / "log"
    path.write_text(OLD + bad + bad + OLD.replace("gc 1", "gc 2"))
    assert run_command(["gctrace", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "2 cycles" in out
    shown = bad.strip()[:80]
    assert (
        err
        == f"gomp: {path}: 2 lines were left out: line 2 is no gctrace line as Go 1.6 and later write it: {shown!r}\n"
    )
    assert run_command(["gctrace", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert ([len(run["cycles"]) for run in found["runs"]], found["lines_left_out"]) == ([2], 2)


def test_the_largest_numbers_that_are_read_can_be_shown(tmp_path, capsys):
    path, most = tmp_path / "log", "9" * 15
    path.write_text(
        "".join(
            OLD.replace("gc 1 ", f"gc {n} ").replace("5->1", f"{most}->{most}").replace("0.36", most) for n in (1, 2)
        )
    )
    assert run_command(["gctrace", str(path)]) == 0
    assert run_command(["gctrace", "--json", str(path)]) == 0
    json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=lambda word: pytest.fail(word))


def test_a_time_that_goes_back_is_another_run_too():
    """Of which only later cycles are in the file."""
    assert len(read_runs([OLD.replace("@0.008s", "@9.000s"), OLD.replace("gc 1", "gc 7")])) == 2


def test_a_last_line_that_was_cut_is_left_out():
    assert len(read_runs([OLD, OLD[:40]], "log")[0]) == 1


def test_random_bytes_are_one_line_or_nothing(tmp_path, capsys):
    rng = random.Random(7)
    for n in range(30):
        text = bytearray((OLD + NEW).encode() * 3)
        for _ in range(n):
            text[rng.randrange(len(text))] = rng.randrange(256)
        path = tmp_path / "trace"
        path.write_bytes(text)
        code = run_command(["gctrace", str(path)])
        assert code in (0, 1)
        assert capsys.readouterr().err.count("\n") <= 1


def test_the_figures_of_a_run():
    lines = [OLD, NEW]
    (run,) = read_runs(lines, "log")
    summary = summary_of(run)
    assert (summary.cycles, summary.forced, summary.live_min_mb, summary.live_max_mb) == (2, 1, 1, 2)
    assert summary.seconds == pytest.approx(0.019 - 0.008 + (0.081 + 1.0 + 0.005) / 1e3)
    busy = 0.025 + 0.31 + 0.10 + 0.088 + 0.16 + 0.49 + 0.011
    available = 8 * (19 - 8) + 2 * (0.081 + 1.0 + 0.005)  # there are two Ps since the second cycle
    assert summary.gc_cpu_percent == pytest.approx(100 * busy / available)
    assert summary.landing_percent == 100  # of the forced one nothing is said


def test_no_goal_is_no_number(tmp_path, capsys):
    """As Go writes it with GOGC and the limit off: 3 percent below 2^63."""
    path, endless = tmp_path / "log", NEW.replace("5 MB goal", "8532210231536 MB goal")
    path.write_text(endless)
    assert run_command(["gctrace", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "live heap 2 to 2 MB, no goal" in shown
    assert "2 → 3     2  none          2  forced leaks" in shown
    path.write_text(OLD + endless + OLD.replace("gc 1 @0.008s", "gc 3 @0.100s").replace("5 MB goal", "7 MB goal"))
    assert run_command(["gctrace", "--json", str(path)]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [cycle["goal_mb"] for cycle in run["cycles"]] == [5, None, 7]
    assert (run["summary"]["goal_min_mb"], run["summary"]["goal_max_mb"]) == (5, 7)


def test_one_cycle_has_no_rate():
    ((cycle,),) = read_runs([OLD])
    assert summary_of([cycle]).text().startswith("1 cycle, 0 of them forced, in 0.000 s\n")


def test_table_plot_and_json_of_our_own_run(tmp_path, capsys):
    log = tmp_path / "log"
    with log.open("w") as err:
        subprocess.run(
            [sys.executable, "-m", "gomp", "run", "churn", "live=20000", "ops=2000000", "--godebug", "gctrace=1"],
            stderr=err,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )
    assert run_command(["gctrace", str(log), "--last", "2"]) == 0
    shown = capsys.readouterr().out
    assert "the last 2 of" in shown
    assert "heap at the end of marking" in shown
    assert "…" not in shown
    assert run_command(["gctrace", str(log), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["summary"]["cycles"] == len(run["cycles"]) == run["cycles"][-1]["number"]
