"""Traces of running runtimes: what is in them, who may have one, and that nobody tells anything when nobody reads it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from served import Service, environment_in
from test_timeline import check_nesting

import gomp
from gomp import cli
from gomp.core import COMPILED
from gomp.core.shm import layout, tracing
from gomp.core.shm.records import GCSTATS, RUNTIME, TRACE_PARK, gcstats_dtype, p_dtype, runtime_dtype, view
from gomp.errors import GompError
from gomp.runtime.discovery import choose
from gomp.runtime.traces import Recording
from tests.running import busy_ps

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

PROCS = 2


@gomp.compiled
def spin(n: int) -> int:
    x = 1
    for _ in range(n):
        x = (x * 1103515245 + 12345) % 2147483648
    return x


class Traced:
    """A trace that was recorded while ``program()`` ran; ``meanwhile()`` is called in its middle, after the first piece."""

    def __init__(self, rt, program, seconds=60.0):
        recording = Recording(choose(rt.name), seconds, maps=False)
        pieces = recording.pieces()
        text = next(pieces)
        program()
        recording.stop()
        text += "".join(pieces)
        self.recording = recording
        trace = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        self.events, self.about = trace["traceEvents"], trace["otherData"]

    def names(self):
        return Counter(e["name"] for e in self.events if e["ph"] == "X")

    def slices(self, name, pid=None):
        return [e for e in self.events if e["ph"] == "X" and e["name"] == name and pid in (None, e["pid"])]

    def pids(self):
        return {e["args"]["name"]: e["pid"] for e in self.events if e["name"] == "process_name"}


def xpid(p):
    return int(view(p_dtype, layout.p_addr(p))[0].xpid)


def is_anybody_telling():
    return any(view(p_dtype, layout.p_addr(p))[0].xtracing for p in (0, 1, layout.COORDINATOR_P))


def wait_until(is_so, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def trees(rt):
    """A trace of the benchmark of allocator and marker, and what the statistics say of the same time."""
    rt.run("binary_trees", depth=12, goroutines=2)  # all is compiled, and both have their processes
    before, stops = rt.stats(), int(view(gcstats_dtype, GCSTATS)[0].stops)
    traced = Traced(rt, lambda: rt.run("binary_trees", depth=15, goroutines=2))
    return traced, before, rt.stats(), int(view(gcstats_dtype, GCSTATS)[0].stops) - stops


def test_a_trace_is_one_object_of_strict_json_whose_slices_are_nested(trees):
    traced, *_ = trees
    check_nesting(traced.events)
    assert all(event["ts"] >= 0 and event.get("dur", 0) >= 0 for event in traced.events)
    assert traced.about["lost_events"] == 0
    assert {"P0", "P1", "coordinator"} <= set(traced.pids())


def test_it_names_the_programs(trees):
    traced, *_ = trees
    assert traced.names()["binary_trees"] == 1
    assert traced.names()["build_and_count"] > 2


def test_the_time_of_assists_is_that_of_the_statistics(trees):
    traced, before, after, _ = trees
    for p in range(PROCS):
        found = sum(e["dur"] for e in traced.slices("assist", traced.pids()[f"P{p}"])) / 1e6
        assert found == pytest.approx(after.ps[p].assist_cpu_s - before.ps[p].assist_cpu_s, rel=0.01, abs=1e-6)
    assert sum(p.assist_cpu_s for p in after.ps) > sum(p.assist_cpu_s for p in before.ps)


STANDS_STILL = ("stopped", "waits for a cycle to begin", "waits for marking to end")


def test_the_time_in_which_a_p_stood_still_or_swept_is_that_of_the_statistics(trees):
    """Sweeps that find nothing are no slices."""
    traced, before, after, _ = trees
    for p in range(PROCS):
        pid, now, then = traced.pids()[f"P{p}"], after.ps[p], before.ps[p]
        stood = sum(e["dur"] for name in STANDS_STILL for e in traced.slices(name, pid)) / 1e6
        assert stood == pytest.approx(now.stopped_s - then.stopped_s, rel=0.05, abs=2e-3)
        left_out = [e for e in traced.events if e["name"].endswith("sweeps left out") and e["pid"] == pid]
        swept = (
            sum(e["dur"] for e in traced.slices("sweep", pid)) / 1e6
            + sum(e["args"].get("ms", 0.0) for e in left_out) / 1e3
        )
        assert swept <= now.sweep_cpu_s - then.sweep_cpu_s + 1e-6
    assert sum(p.stopped_s for p in after.ps) > sum(p.stopped_s for p in before.ps)


def test_each_cycle_is_marked_and_swept_and_each_pause_has_its_reason(trees):
    traced, before, after, stops = trees
    cycles = after.num_gc - before.num_gc
    assert cycles > 0
    assert cycles - 1 <= len(traced.slices("mark phase")) <= cycles + 1
    assert len(traced.slices("sweep phase")) >= cycles - 1
    pauses = sum(n for name, n in traced.names().items() if name.startswith("stop the world: marking"))
    assert pauses == pytest.approx(stops, abs=2)
    assert sum(e["args"].get("marked_bytes", 0) for e in traced.slices("mark phase")) > 0


def test_it_has_the_heap_and_its_goal_as_counters(trees):
    traced, *_ = trees
    heap = [e["args"] for e in traced.events if e["ph"] == "C" and e["name"] == "heap"]
    assert all(0 <= values["live"] and values["goal"] > 0 for values in heap)
    assert len({values["live"] for values in heap}) > 5


def test_goroutines_have_their_frames_names_and_arrows_lead_to_them(rt):
    rt.run("ping_pong:play", 1000)
    traced = Traced(rt, lambda: rt.run("ping_pong:play", 100_000))
    check_nesting(traced.events)
    names = traced.names()
    assert min(names["Ping"], names["Pong"]) > 10
    reasons = {e["args"].get("stopped_by") for name in ("Ping", "Pong") for e in traced.slices(name)}
    assert reasons & {"chan receive", "chan send"}, "whoever comes first waits: each stops at the one or at the other"
    left_out = [e["args"]["count"] for e in traced.events if e["name"].endswith("switches left out")]
    assert names["Ping"] + names["Pong"] + sum(left_out) >= 200_000, "one waits for each number that is sent"
    arrows = Counter(e["ph"] for e in traced.events if e["ph"] in "sf")
    assert arrows["s"] == arrows["f"] > 10


def test_a_killed_process_leaves_what_it_did_until_then(rt):
    pid = xpid(1)

    def kill():
        calls = [rt.go(spin, 1 << 40) for _ in range(PROCS)]
        wait_until(lambda: busy_ps() == {0, 1})
        time.sleep(0.05)
        for p in range(PROCS):
            os.kill(xpid(p), signal.SIGKILL)
        for call in calls:
            with pytest.raises(gomp.WorkerDied):
                call.wait()
        rt.run(spin, 1)  # whoever comes in its place

    traced = Traced(rt, kill)
    check_nesting(traced.events)
    killed = [e for e in traced.slices("spin", pid) if e["args"].get("killed")]
    assert len(killed) == 1
    assert killed[0]["dur"] > 40_000
    assert [e["pid"] for e in traced.events if e["name"] == "its process has died"].count(pid) == 1
    assert traced.names()["repair"] >= 1


def test_a_trace_that_begins_in_the_middle_of_a_program_begins_with_it(rt):
    call = rt.go(time.sleep, 1.0)
    wait_until(busy_ps)
    traced = Traced(rt, lambda: time.sleep(0.05))
    call.wait()
    (slice_,) = traced.slices("sleep")
    assert slice_["ts"] == 0
    assert slice_["args"]["unfinished"]


def test_what_a_p_runs_that_has_come_since_the_trace_began_is_there(rt):
    """It begins to tell in the middle of it, or just before."""
    gomp.debug.set_max_procs(1)
    wait_until(lambda: xpid(1) == 0)

    def grow():
        gomp.debug.set_max_procs(PROCS)
        for call in [rt.go(time.sleep, 0.3) for _ in range(PROCS)]:
            call.wait()

    traced = Traced(rt, grow)
    for p in range(PROCS):
        (slice_,) = traced.slices("sleep", traced.pids()[f"P{p}"])
        assert slice_["dur"] > 200_000
        assert "unfinished" not in slice_["args"]


def test_there_is_one_at_a_time_and_it_ends_with_who_reads_it(rt):
    first = Recording(choose(rt.name), 60.0, maps=False)
    assert is_anybody_telling()
    with pytest.raises(GompError, match="a trace is being recorded already"):
        Recording(choose(rt.name), 1.0, maps=False)
    assert is_anybody_telling(), "who was refused has ended nothing"
    first.close()
    wait_until(lambda: not is_anybody_telling())


def test_a_reader_that_is_too_late_is_told_what_is_missing(rt):
    """This process is a P, too, and tells far more than its ring holds before anybody looks."""

    def tell_much():
        for _ in range(layout.TRACE_EVENTS + 1000):
            tracing.tell_if_tracing(TRACE_PARK, 0, 0)

    traced = Traced(rt, tell_much)
    assert 1000 <= traced.about["lost_events"] <= 1100
    lost = [e["args"]["lost"] for e in traced.events if e["name"].endswith("events lost")]
    assert sum(lost) == traced.about["lost_events"]
    check_nesting(traced.events)


def test_a_coordinator_that_is_stopped_is_said_to_be_and_not_that_the_runtime_has_ended(rt, monkeypatch):
    monkeypatch.setattr("gomp.runtime.traces._END_S", 0.2)
    pid = int(view(runtime_dtype, RUNTIME)[0].coordinator_pid)
    try:
        traced = Traced(rt, lambda: os.kill(pid, signal.SIGSTOP))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert traced.recording.summary().endswith("; the runtime did not answer within 0.2 s: is its coordinator stopped?")
    wait_until(lambda: not is_anybody_telling())


def gomp_trace(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gomp", "trace", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_writes_a_file(rt, tmp_path):
    file = tmp_path / "t.json"
    process = gomp_trace("-o", str(file), "--seconds", "0.2", rt.name)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), err
    assert re.fullmatch(rf"{re.escape(str(file))}: [\d.]+ s of {rt.name}, [\d,]+ events?\n", err)
    trace = json.loads(file.read_text())
    assert trace["otherData"]["runtime"] == rt.name
    assert 0.2 <= trace["otherData"]["seconds"] < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_the_file_is_whole(rt, tmp_path, number):
    file = tmp_path / "t.json"
    process = gomp_trace("-o", str(file), "--seconds", "100", rt.name)
    wait_until(lambda: file.exists() and file.stat().st_size > 0, 60)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ended before its time" in err
    assert json.loads(file.read_text())["otherData"]["seconds"] < 100
    assert not is_anybody_telling()


@pytest.mark.slow  # a connection that is closed is the same
def test_a_killed_reader_costs_nothing(rt, tmp_path):
    file = tmp_path / "t.json"
    process = gomp_trace("-o", str(file), "--seconds", "100", rt.name)
    wait_until(is_anybody_telling, 60)
    process.kill()
    process.communicate()
    wait_until(lambda: not is_anybody_telling())


def test_a_closed_pipe_ends_it(rt):
    process = gomp_trace("-o", "-", "--seconds", "100", rt.name)
    assert process.stdout.readline().startswith('{"displayTimeUnit"')
    process.stdout.close()
    with process.stderr as errors:
        assert (process.wait(60), errors.read()) == (1, "")
    wait_until(lambda: not is_anybody_telling())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9", "soon", ""])
def test_absurd_times_are_one_line(rt, seconds, tmp_path, capsys):
    file = tmp_path / "t.json"
    assert cli.run_command(["trace", "-o", str(file), "--seconds", seconds, rt.name]) == 2
    assert capsys.readouterr().err == f"gomp: seconds={seconds}: give a number above 0, up to 3600\n"
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_one_line_and_one_that_is_there_stays(rt, tmp_path, capsys):
    assert cli.run_command(["trace", "-o", str(tmp_path), rt.name]) == 2
    assert capsys.readouterr().err == f"gomp: cannot write {tmp_path}: Is a directory\n"
    file = tmp_path / "t.json"
    file.write_text("precious")
    other = Recording(choose(rt.name), 60.0, maps=False)
    assert cli.run_command(["trace", "-o", str(file), rt.name]) == 1
    other.close()
    assert "one at a time" in capsys.readouterr().err
    assert file.read_text() == "precious"


# --- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory, compiled_kernels):
    directory = tmp_path_factory.mktemp("service")
    (directory / "service.toml").write_text("metrics_port = 0\nprocs = 1\n")
    made = Service(directory / "service.toml", environment_in(directory))
    yield made
    made.close()


def test_the_service_gives_a_trace(service):
    began = time.monotonic()
    answer = service.client.get("/debug/trace?seconds=0.2")
    took_s = time.monotonic() - began
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    trace = json.loads(answer.text)
    check_nesting(trace["traceEvents"])
    assert 0.2 <= trace["otherData"]["seconds"] < took_s


@pytest.mark.parametrize("seconds", ["0", "nan", "-3", "x", "99999"])
def test_the_service_refuses_absurd_times(service, seconds):
    answer = service.client.get(f"/debug/trace?seconds={seconds}")
    assert (answer.status_code, answer.text) == (400, f"seconds={seconds}: give a number above 0, up to 3600\n")


def test_a_second_client_is_told_and_one_that_leaves_ends_its_trace(service):
    wait_until(lambda: service.client.get("/debug/trace?seconds=0.1").status_code == 200)  # another test's may just end
    with service.client.stream("GET", "/debug/trace?seconds=100") as first:
        assert first.status_code == 200
        pieces = first.iter_text()  # its end would be that of the connection
        next(pieces)
        second = service.client.get("/debug/trace?seconds=0.1")
        assert second.status_code == 409
        assert "one at a time" in second.text
    wait_until(lambda: service.client.get("/debug/trace?seconds=0.1").status_code == 200)
