"""The goroutine profile: records, Go's texts, groups, and what the service gives to a browser and to the real ``go tool pprof``."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections import Counter

import pytest

import gomp
from gomp.runtime import goroutineprofile
from gomp.runtime.goroutineprofile import Group
from gomp.runtime.sitetable import Site
from tests.served import Service
from tests.served import gomp as run_gomp
from tests.test_leaks import Box, Receives, Runs, Sends, boxes, receive, wait_until, waiting
from workers import goroutine_leak

CONFIG = """
name = "served"
procs = 2
metrics_port = 0
max_heap = "256MiB"
[[programs]]
program = "goroutine_leak"
parameters = { requests = 50, rounds = 1, nbytes = 1024 }
"""
LEAK_LINE = "f.send(f.reply, len(f.body))"
START_LINE = "gomp.go(Answer, body=body, reply=second)"


def line_in(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


@gomp.frame
class Deep:
    """Calls itself so often before it waits."""

    ch: gomp.Chan[int]
    depth: int
    has_called: bool

    def step(f) -> gomp.Action:
        if f.has_called:
            return f.ret()
        f.has_called = True
        if f.depth > 0:
            return f.call(Deep, ch=f.ch, depth=f.depth - 1)
        return f.recv(f.ch)


@gomp.frame
class Starts:
    ch: gomp.Chan[int]

    def step(f) -> gomp.Action:
        gomp.go(Deep, ch=f.ch)
        return f.ret()


@gomp.compiled
def start(ch: gomp.Chan[int]) -> None:
    gomp.go(Receives, ch=ch)  # another place in the same function
    gomp.go(Deep, ch=ch)


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime(procs=2) as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


def of(goid: int) -> goroutineprofile.GoroutineRecord:
    return next(g for g in gomp.debug.goroutines() if g.id == goid)


def test_a_record_says_what_a_goroutine_does_and_where(rt):
    ch = gomp.Chan[int]()
    goid = gomp.go(Deep, ch=ch, depth=2)
    wait_until(lambda: of(goid).wait_reason == "chan receive")
    g = of(goid)
    assert (g.status, g.wait_reason, g.leaked, g.waiting_ns) == ("waiting", "chan receive", False, 0)
    call, wait = (line_in(Deep.step, text) for text in ("f.call(", "f.recv("))
    assert [f.line for f in g.frames] == [wait, call, call]
    assert {(f.function, f.file) for f in g.frames} == {("Deep.step", __file__)}
    assert (g.created_at.file, g.created_at.function, g.parent) == (__file__, inspect.currentframe().f_code.co_name, 0)
    assert g.stack_bytes == 2048
    assert 0 < g.frame_bytes < 2048
    rt.gc()
    assert 0 < of(goid).waiting_ns < 60e9
    ch.close()


@pytest.mark.parametrize(
    ("begin", "function", "text"),
    [
        (lambda rt, ch: start(ch), start.py_func, "gomp.go(Deep"),
        (lambda rt, ch: rt.run(start, ch), start.py_func, "gomp.go(Deep"),
        (lambda rt, ch: gomp.go(Starts, ch=ch), Starts.step, "gomp.go(Deep"),
    ],
)
def test_the_place_that_started_it_is_known_from_everywhere(rt, begin, function, text):
    ch = gomp.Chan[int]()
    before = {g.id for g in gomp.debug.goroutines()}
    begin(rt, ch)

    def found():
        return [
            g for g in gomp.debug.goroutines() if g.id not in before and "Deep.step" in {f.function for f in g.frames}
        ]

    wait_until(found)
    (g,) = found()
    assert (g.created_at.file, g.created_at.line) == (__file__, line_in(function, text))
    assert g.created_at.function.endswith(function.__qualname__)
    ch.close()


def test_waits_have_gos_names(rt):
    ch = gomp.Chan[int]()
    ids = [gomp.go(Receives, ch=ch), gomp.go(Sends, ch=gomp.Chan[int]()), gomp.go(Receives), gomp.go(Sends)]
    wait_until(lambda: waiting() >= set(ids))
    assert [of(goid).wait_reason for goid in ids] == [
        "chan receive",
        "chan send",
        "chan receive (nil chan)",
        "chan send (nil chan)",
    ]
    gomp.debug.leaked_goroutines()
    assert [of(goid).state for goid in ids] == [
        "chan receive",
        "chan send (leaked)",
        "chan receive (nil chan) (leaked)",
        "chan send (nil chan) (leaked)",
    ]
    ch.close()


def test_a_program_that_waits_stands_where_it_waits(rt):
    ch = gomp.Chan[int]()
    before = waiting()
    program = rt.go(receive, ch)
    wait_until(lambda: len(waiting() - before) == 1)
    (goid,) = waiting() - before
    assert [(f.function, f.line) for f in of(goid).frames] == [("receive", line_in(receive.py_func, "ch.recv"))]
    ch.send(1)
    assert program.wait(timeout=20) == 1


def test_a_deep_stack_is_shown_up_to_a_hundred_frames(rt):
    ch = gomp.Chan[int]()
    goid = gomp.go(Deep, ch=ch, depth=300)
    wait_until(lambda: goid in waiting())
    g = of(goid)
    assert len(g.frames) == 100
    assert goroutineprofile.tracebacks([g]).splitlines()[-3] == "...additional frames elided..."
    ch.close()


def test_texts_are_gos(rt):
    ch = gomp.Chan[int]()
    ids = {gomp.go(Receives, ch=ch) for _ in range(7)}
    wait_until(lambda: waiting() >= ids)
    text = goroutineprofile.tracebacks([of(min(ids))])
    assert re.fullmatch(
        r"goroutine \d+ \[chan receive\]:\nReceives.step\n\t\S+/test_leaks.py:\d+\n"
        r"created by test_texts_are_gos.<locals>.<setcomp>\n\t\S+/test_goroutine_profile.py:\d+\n",
        text,
    )
    groups = goroutineprofile.groups()
    total = len(gomp.debug.goroutines())
    assert sum(group.count for group in groups) == total
    summary = goroutineprofile.summary(groups)
    assert summary.startswith(f"goroutine profile: total {total}\n")
    assert re.search(r"^\d+ @ 0x\w+\n#\t0x\w+\tReceives.step\t\S+test_leaks.py:\d+$", summary, re.MULTILINE)
    ch.close()


def test_a_text_has_so_many_bytes_at_most_and_says_how_many_are_left_out(rt):
    ch = gomp.Chan[int]()
    ids = {gomp.go(Receives, ch=ch, labels={"n": str(i)}) for i in range(50)}
    wait_until(lambda: waiting() >= ids)
    each = goroutineprofile.text_of_all(False, 2000)
    grouped = goroutineprofile.summary(goroutineprofile.groups(), "goroutine", 2000)
    shown = {
        each: len(re.findall(r"^goroutine \d+ \[", each, re.MULTILINE)),
        grouped: sum(map(int, re.findall(r"^(\d+) @ ", grouped, re.MULTILINE))),
    }
    for text, n in shown.items():
        assert len(text.encode()) < 2000 + 100
        left_out = int(
            re.fullmatch(r"\D+(\d+) more goroutines left out: .*2000 bytes at most\D*", text.splitlines()[-1])[1]
        )
        assert 0 < n == len(gomp.debug.goroutines()) - left_out
    assert goroutineprofile.text_of_all(False, 1 << 20) == goroutineprofile.tracebacks(goroutineprofile.read())
    ch.close()


def test_it_can_be_read_while_goroutines_run_begin_and_end(rt):
    """Each record is one that a goroutine may have had: the frames are its own."""
    end = gomp.new(Box)
    box = boxes(1)
    own = [gomp.go(Runs, box=box, end=end) for _ in range(20)]
    until, states = time.monotonic() + 0.5, Counter()
    while time.monotonic() < until:
        for g in gomp.debug.goroutines():
            if g.id in own:
                states[g.status] += 1
                assert {f.function for f in g.frames} <= {"Runs.step"}
    assert states["runnable"] > 0
    end.size = 1


# --- a service --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    directory = tmp_path_factory.mktemp("service")
    (directory / "service.toml").write_text(CONFIG)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GO")} | {"XDG_RUNTIME_DIR": str(directory)}
    made = Service(directory / "service.toml", environment)
    made.environment = environment
    deadline = time.monotonic() + 60
    while made.samples().get(("go_goroutines",), 0) < 50:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield made
    made.close()


def test_http_has_gos_profiles(service):
    text = service.client.get("/debug/pprof/goroutine?debug=2").text
    line = line_in(goroutine_leak.Answer.step, LEAK_LINE)
    start = line_in(goroutine_leak.answer.py_func, START_LINE)
    block = rf"\[chan send(?: \(leaked\))?\]:\nAnswer.step\n\t\S+goroutine_leak.py:{line}\ncreated by answer.*\n\t\S+:{start}\n"
    assert len(re.findall(block, text)) >= 50
    leaks = service.client.get("/debug/pprof/goroutineleak?debug=1").text
    count = int(re.match(r"goroutineleak profile: total (\d+)\n", leaks)[1])
    assert count >= 50
    assert re.search(rf"^{count} @ 0x1\n#\t0x1\tAnswer.step\t\S+:{line}$", leaks, re.MULTILINE)
    assert "(leaked)" in service.client.get("/debug/pprof/goroutineleak?debug=2").text
    assert "goroutineleak" in service.client.get("/debug/pprof/").text


def test_what_has_come_is_what_is_more_than_before(service):
    answer = service.client.get("/debug/pprof/goroutine?seconds=1")
    assert 'filename="goroutine-delta"' in answer.headers["content-disposition"]
    at, other, labels = (Site("f", "f.py", 1),), (Site("g", "g.py", 2),), (("k", "v"),)
    before, now = [Group(3, at), Group(2, other)], [Group(5, at), Group(1, at, labels)]
    assert goroutineprofile.since(before, now) == [Group(2, at), Group(1, at, labels), Group(-2, other)]
    assert goroutineprofile.since(now, now) == []


def test_the_metrics_name_the_place_that_leaks(service):
    service.client.get("/debug/pprof/goroutineleak?debug=1")
    place = f"{goroutine_leak.__file__}:{line_in(goroutine_leak.answer.py_func, START_LINE)}"
    wait_until(lambda: service.samples().get(("gomp_goroutines", place), 0) >= 50)  # it is not counted at each scrape
    samples = service.samples()
    assert sum(n for (name, *_), n in samples.items() if name == "gomp_goroutines") >= samples["gomp_goroutines", place]
    assert samples[("gomp_goroutines_leaked",)] >= 50
    assert samples[("gomp_goroutine_leak_looks_total",)] >= 1
    assert samples[("gomp_goroutine_record_bytes",)] >= 256 * samples[("go_goroutines",)]


@pytest.mark.parametrize("debug", ["3", "-1", "x", ""])
def test_a_wrong_debug_is_refused(service, debug):
    assert service.client.get(f"/debug/pprof/goroutine?debug={debug}").status_code == 400


def test_an_unknown_profile_is_not_found(service):
    assert service.client.get("/debug/pprof/nothing").status_code == 404


def test_the_command_line_shows_them(service):
    shown = run_gomp(service.environment, "ctl", "goroutines", "--leaked", "--grouped")
    assert re.match(r"goroutineleak profile: total \d+\n\d+ @ 0x1\n", shown.stdout), shown.stderr
    assert "chan send" in run_gomp(service.environment, "ctl", "goroutines").stdout


@pytest.mark.slow  # the tool is compiled first, which takes a minute
@pytest.mark.parametrize("which", ["goroutine", "goroutineleak"])
def test_go_tool_pprof_reads_them(service, tmp_path_factory, tmp_path, which):
    go = shutil.which("go", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    file = tmp_path / "profile.pb.gz"
    file.write_bytes(service.client.get(f"/debug/pprof/{which}").content)
    cache = tmp_path_factory.getbasetemp() / "go-cache"
    environment = service.environment | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOCACHE": str(cache)}
    environment["HOME"] = str(tmp_path)
    top = subprocess.run(
        [go, "tool", "pprof", "-top", "-lines", str(file)], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert f"Type: {which}" in top
    first = next(line for line in top.splitlines() if "step" in line)
    assert f"Answer.step {goroutine_leak.__file__}:{line_in(goroutine_leak.Answer.step, LEAK_LINE)}" in first
    assert int(first.split()[0]) >= 50


def test_labels_are_those_of_who_starts_it(rt):
    ch = gomp.Chan[int]()
    ids = [gomp.go(Deep, ch=ch, labels={"path": "/index", "kind": "a b"}), gomp.go(Deep, ch=ch)]
    before = {g.id for g in gomp.debug.goroutines()}
    gomp.go(Starts, ch=ch, labels={"path": "/child"})
    wait_until(lambda: waiting() >= set(ids) and len(waiting() - before) == 1)
    child = next(g for g in gomp.debug.goroutines() if g.id in waiting() - before)
    labels = {g.id: g.labels for g in gomp.debug.goroutines()}
    assert labels[ids[0]] == (("kind", "a b"), ("path", "/index"))
    assert labels[ids[1]] == ()
    assert labels[child.id] == (("path", "/child"),)
    texts = goroutineprofile.tracebacks(goroutineprofile.read())
    assert f'goroutine {ids[0]} [chan receive] {{kind: "a b", path: /index}}:' in texts
    counted = goroutineprofile.summary(goroutineprofile.groups())
    assert '# labels: {"kind":"a b", "path":"/index"}\n' in counted
    assert sum(group.count for group in goroutineprofile.groups() if group.labels) == 2
    with pytest.raises(TypeError, match="labels= is a dict of texts"):
        gomp.go(Deep, ch=ch, labels={"n": 1})
    ch.close()


def test_lines_of_two_files_that_are_alike_are_told_apart(rt):
    ch, ids = gomp.Chan[int](), {}
    for name in ("one.py", "two.py"):
        names = {"gomp": gomp, "Deep": Deep, "ch": ch}
        exec(compile("def start():\n    return gomp.go(Deep, ch=ch)\n", name, "exec"), names)
        ids[names["start"]()] = name
    assert {g.id: g.created_at.file for g in gomp.debug.goroutines() if g.id in ids} == ids
    ch.close()
