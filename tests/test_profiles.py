"""The memory profile and the CPU profile of real processes: the right lines, the right sums, and what the service gives."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import gomp
from gomp.config import RuntimeSettings
from gomp.core.shm import layout
from gomp.core.shm.atomics import add_acq_rel
from gomp.core.shm.records import MEMPROFILE_XFLUSHES
from gomp.runtime import cpuprofile, goroutineprofile, memprofile, pprof
from gomp.runtime.sitetable import Site
from gomp.service import pprof as service_pprof
from gomp.service.app import make_app
from gomp.service.live.routes import Page
from gomp.service.shared import Shared
from tests.served import Service, environment_in

HERE = os.path.abspath(__file__)


@gomp.struct
class Link:
    next: Link
    value: int


@gomp.compiled
def chain(n: int) -> Link:
    head: Link = None
    for i in range(n):
        head = gomp.new(Link, next=head, value=i)
    return head


@gomp.compiled
def blocks(n: int, size: int) -> gomp.Array[gomp.Array[int]]:
    made = gomp.array(gomp.Array[int], n)
    for i in range(n):
        made[i] = gomp.array(int, size)
    return made


@gomp.compiled
def numbers(n: int) -> gomp.Map[int, Link]:
    made = gomp.map(int, Link)
    one = gomp.new(Link)
    for i in range(n):
        made[i] = one
    return made


@gomp.frame
class Grows(gomp.Frame[Link]):
    depth: int
    made: Link

    def step(f) -> gomp.Action:
        if f.depth == 0:
            return f.ret(gomp.new(Link, value=1))
        if f.made is not None:
            return f.ret(f.made)
        return f.call(Grows, depth=f.depth - 1, into="made")


def hold(n):
    return chain(n)


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        chain(10_000)


def line_in(function, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def profile_of(rt):
    rt.gc()
    return gomp.debug.heap_profile()


def test_sums_are_right_at_a_higher_rate():
    """200 MiB, of which one in 32 KiB is sampled: 6400 samples, so 5% is four times the standard deviation."""
    with gomp.Runtime.of(RuntimeSettings(procs=1, godebug="memprofilerate=32768")) as rt:
        kept = blocks(200 << 10, 126)
        rt.gc()
        found = gomp.debug.heap_profile()
        true = rt.stats().heap_alloc
        assert sum(r.in_use_bytes for r in found) == pytest.approx(true, rel=0.05)
        assert found[0].frames[0].function == "blocks"
        assert len(kept) == 200 << 10


@pytest.fixture(scope="module")
def rt():
    with gomp.Runtime.of(RuntimeSettings(procs=1, godebug="memprofilerate=1")) as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


def test_an_object_of_python_has_the_line_that_made_it(rt):
    kept = [gomp.new(Link, value=i) for i in range(10)]
    here = next(r for r in profile_of(rt) if r.object_bytes == 16 and r.in_use == 10)
    name = "test_an_object_of_python_has_the_line_that_made_it"
    line = line_in(test_an_object_of_python_has_the_line_that_made_it, "kept = ")
    assert here.frames[0].function in (name, f"{name}.<locals>.<listcomp>")
    assert (here.frames[0].file, here.frames[0].line) == (HERE, line)
    del kept
    assert not any(r.in_use for r in profile_of(rt) if r.frames[0] == here.frames[0])


def test_compiled_code_has_its_line_and_those_of_its_callers_in_python(rt):
    kept = hold(1000)
    (found,) = (r for r in profile_of(rt) if r.in_use and r.frames[0].function == "chain")
    assert (found.in_use, found.allocs, found.object_bytes, found.in_use_bytes) == (1000, 1000, 16, 16_000)
    assert found.frames[0] == Site("chain", HERE, line_in(chain.py_func, "gomp.new"))
    assert found.frames[1] == Site("hold", HERE, line_in(hold, "chain(n)"))
    assert found.frames[2].line == line_in(
        test_compiled_code_has_its_line_and_those_of_its_callers_in_python, "kept = hold"
    )
    assert kept.value == 999


def test_arrays_large_ones_too(rt):
    kept = blocks(3, 100_000)
    found = {r.object_bytes: r for r in profile_of(rt) if r.in_use and r.frames[0].function == "blocks"}
    assert [r.in_use for r in found.values()] == [3, 1]
    assert max(found) == 802_816
    assert found[802_816].frames[0].line == line_in(blocks.py_func, "gomp.array(int")
    assert len(kept) == 3


def test_what_maps_and_texts_make_has_the_line_of_the_call(rt):
    kept = numbers(100)
    made = [r for r in profile_of(rt) if r.in_use and r.frames[0].function == "numbers"]
    assert {r.frames[0].line for r in made} == {
        line_in(numbers.py_func, text) for text in ("gomp.map", "gomp.new", "made[i]")
    }
    assert sum(r.in_use for r in made) > 100
    assert len(kept) == 100


def test_a_goroutine_has_its_frames(rt):
    kept = Grows.run(depth=2)
    (found,) = (r for r in profile_of(rt) if r.in_use and r.frames[0].function == "Grows.step")
    lines = [line_in(Grows.step, text) for text in ("f.ret(gomp.new", "f.call", "f.call")]
    assert [(f.function, f.line) for f in found.frames] == [("Grows.step", line) for line in lines]
    assert kept.value == 1


def test_a_program_on_a_p_is_named(rt):
    kept = rt.run(hold, 50)
    found = [r for r in profile_of(rt) if r.in_use == 50 and r.frames[0].function == "chain"]
    assert [[f.function for f in r.frames] for r in found] == [["chain", "hold"]]
    assert kept.value == 49


def test_the_table_of_code_is_per_runtime_and_bad_places_are_none(rt):
    """Stacks deeper than a bucket has room for have their innermost frames."""

    def deep(n):
        return gomp.new(Link, value=7) if n == 0 else deep(n - 1)

    kept = deep(100)
    found = next(r for r in profile_of(rt) if r.in_use == 1 and r.frames[0].function.endswith("deep"))
    assert {f.function for f in found.frames} == {found.frames[0].function}
    assert 40 < len(found.frames) <= 56
    assert kept.value == 7


def test_a_file_for_go_tool_pprof(rt, tmp_path):
    kept = hold(10)
    rt.gc()
    gomp.debug.write_heap_profile(tmp_path / "heap.pb.gz")
    profile = pprof._profile_class().FromString(gzip.decompress((tmp_path / "heap.pb.gz").read_bytes()))
    texts = list(profile.string_table)
    kinds = [(texts[kind.type], texts[kind.unit]) for kind in profile.sample_type]
    assert kinds == list(pprof.MEMORY_KINDS)
    assert texts[profile.default_sample_type] == "inuse_space"
    assert profile.period == 1
    assert {label.num for sample in profile.sample for label in sample.label} >= {16}
    assert "chain" in {texts[function.name] for function in profile.function}
    (mapping,) = profile.mapping  # that has names, so that no binary is looked for
    assert mapping.has_functions
    assert {location.mapping_id for location in profile.location} == {mapping.id}
    assert kept.value == 9


def test_goroutines_that_switch_while_it_looks_are_themselves_or_not_there(rt):
    """Which runs is another one all the time, or none."""
    rt.run("ping_pong:play", 1)  # its steps are compiled
    looks = cpuprofile.CpuProfile()
    running = rt.go("ping_pong:play", 2_000_000)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        looks.look()
    running.wait(60)
    found = {f.function for sample in looks.samples() for f in sample.frames}
    assert found & {"Ping.step", "Pong.step"}
    for number in (0, layout.GS_BASE, layout.GS_BASE + 1, -8, 1 << 60):
        assert goroutineprofile.frames_of_running(number) == ()


def test_the_cpu_profile_says_what_a_p_does(rt):
    rt.go(spin, 0.01).wait()  # loads its kernels
    looks = cpuprofile.CpuProfile()
    running = rt.go(spin, 0.5)
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        looks.look()
        time.sleep(0.01)
    running.wait()
    by_p = {}
    for sample in looks.samples():
        by_p.setdefault(dict(sample.labels)["p"], []).append(sample)
    assert {"P0", "coordinator"} <= set(by_p)
    spinning = [s for s in by_p["P0"] if "spin" in {f.function for f in s.frames}]
    assert sum(s.values[1] for s in spinning) > 0.1e9, "CPU time of the program, some of it in assists"
    assert sum(s.values[2] for s in by_p["P0"]) == pytest.approx(looks.duration_ns, rel=0.1)


def test_work_that_is_over_before_the_next_look_is_not_called_idle(rt):
    rt.go(spin, 0.01).wait()  # loads its kernels
    looks = cpuprofile.CpuProfile()
    running = rt.go(spin, 0.4)
    for _ in range(2):
        time.sleep(0.1)
        looks.look()
    running.wait()
    for _ in range(3):
        rt.go(spin, 0.1).wait()
        time.sleep(0.02)
        looks.look()
    by_program = Counter()
    for sample in looks.samples():
        if ("p", "P0") in sample.labels:
            by_program["spin" in {frame.function for frame in sample.frames}] += sample.values[1]
    assert by_program[True] > 0.02e9
    assert by_program[False] == 0


def work_of(looks, frames, pid=7):
    """What 10 ns of CPU time were for, of which the collector says nothing."""
    before, now = (cpuprofile._Seen(pid, cpu_ns, 0, 0, 0) for cpu_ns in (100, 110))
    return looks._work("P0", frames, before, now)


def test_a_program_is_remembered_while_nothing_but_the_collector_is_seen(rt):
    looks, spins, nobody = cpuprofile.CpuProfile(), (Site("spin", HERE, 1),), (Site("P0"),)
    assert work_of(looks, spins) == {spins: 10}
    assert work_of(looks, (Site(cpuprofile.MARK), *nobody)) == {(Site(cpuprofile.MARK), *nobody): 10}
    at_rest = (Site(cpuprofile.IDLE), *nobody)
    assert work_of(looks, at_rest) == {at_rest: 0, spins: 10}
    assert work_of(looks, at_rest, pid=8) == {at_rest: 0, nobody: 10}, "of a successor nothing is known"


def test_a_coordinator_at_rest_has_worked_before(rt):
    looks = cpuprofile.CpuProfile()
    for _ in range(20):
        rt.run("ping_pong:play", 1)  # it is given to a P
        looks.look()
    spent = {s.frames: s.values[1] for s in looks.samples() if ("p", "coordinator") in s.labels}
    assert sum(spent.values()) > 0
    assert not any(spent[frames] for frames in spent if frames[0] == Site(cpuprofile.IDLE))


def test_what_a_process_did_before_it_was_this_p_is_not_counted(rt, monkeypatch):
    """An attached one may leave and come back as another P: totals of the two are not one less the other."""
    looks = cpuprofile.CpuProfile()
    totals = iter([(7, 100, 5000), None, (7, 300, 50), (7, 310, 50), (8, 400, 9000)])

    def see(p):
        found = next(totals) if p.idx == layout.COORDINATOR_P else None
        return found and cpuprofile._Seen(found[0], found[1], 0, found[2], 0)

    monkeypatch.setattr(cpuprofile, "_see", see)
    for _ in range(5):
        looks.look()
    assert sum(sample.values[1] for sample in looks.samples()) == 10


def test_nobody_knows_what_happened_while_who_looks_was_stopped(rt, monkeypatch):
    looks = cpuprofile.CpuProfile()
    running = rt.go(spin, 0.5)
    looks.look()
    time.sleep(0.3)
    monkeypatch.setattr(cpuprofile, "_UNSEEN_NS", 200_000_000)
    looks.look()
    assert sum(sample.values[2] for sample in looks.samples()) < 0.1e9
    running.wait()


async def ask_service(name, *paths):
    """What the service of the runtime ``name`` answers to all of them at once."""
    transport = httpx.ASGITransport(make_app(Shared(name), Page(name, "off")))
    async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
        return await asyncio.gather(*(client.get(path) for path in paths))


def test_nothing_is_compiled_for_an_answer():
    """In the service, which shares the pages of the compiler with the coordinator, that would copy 11 MiB of them."""
    script = """
import asyncio, gomp
from numba.core import event
from tests.test_profiles import ask_service

class Compilations(event.Listener):
    def on_start(self, begun):
        print("compiled", begun.data["dispatcher"].py_func.__name__)

    def on_end(self, ended):
        pass

with gomp.Runtime(procs=1) as rt:
    rt.run("goroutine_leak", requests=20, rounds=1)
    event.register("numba:compile", Compilations())
    profiles = [f"/debug/pprof/{path}" for path in ("", "heap", "heap?debug=1", "goroutine", "goroutine?debug=2", "profile?seconds=1")]
    answers = asyncio.run(ask_service(rt.name, "/metrics", "/live/metrics", "/debug/trace?seconds=0.1", *profiles))
    assert {answer.status_code for answer in answers} == {200}
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"GODEBUG": "memprofilerate=1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.startswith("compiled")] == []


@pytest.fixture
def half_published(rt, monkeypatch):
    """The coordinator stands in the middle of publishing the profile."""
    monkeypatch.setattr(memprofile, "_PATIENCE_S", 0.05)
    memprofile.read()
    add_acq_rel(MEMPROFILE_XFLUSHES, 1)
    yield
    add_acq_rel(MEMPROFILE_XFLUSHES, 1)
    memprofile.read()


@pytest.mark.usefixtures("half_published")
def test_a_profile_is_refused_while_the_coordinator_stands_in_the_middle_of_publishing_it():
    with pytest.raises(gomp.GompError, match="is it stopped"):
        memprofile.read()


@pytest.mark.usefixtures("half_published")
@pytest.mark.parametrize("path", ["", "heap", "heap?debug=1", "heap?seconds=1", "allocs"])
def test_the_service_says_so_in_a_line(rt, path):
    (answer,) = asyncio.run(ask_service(rt.name, f"/debug/pprof/{path}"))
    assert (answer.status_code, answer.text.count("\n")) == (503, 1)
    assert "is it stopped" in answer.text


@pytest.mark.parametrize(
    ("gc", "collections"), [("1", 1), ("02", 1), ("0", 0), ("", 0), ("-1", 0), ("x", 0), ("1x", 0), ("\u0661", 0)]
)
def test_a_number_above_0_collects_first_and_nothing_else_does(rt, gc, collections):
    before = rt.stats().num_forced_gc
    (answer,) = asyncio.run(ask_service(rt.name, f"/debug/pprof/heap?gc={gc}"))
    assert answer.status_code == 200
    assert rt.stats().num_forced_gc - before == collections


# --- a service --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    directory = tmp_path_factory.mktemp("service")
    config = 'name = "served"\nprocs = 1\nmetrics_port = 0\nmax_heap = "256MiB"\ngodebug = "memprofilerate=4096"\n[[programs]]\nprogram = "churn"\n'
    (directory / "service.toml").write_text(config + "parameters = { live = 1000, ops = 1000000000 }\n")
    made = Service(directory / "service.toml", environment_in(directory))
    deadline = time.monotonic() + 60
    while made.samples().get(("go_memstats_mallocs_total",), 0) < 100_000:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield made
    made.close()


def test_heap_and_allocs_in_both_forms(service):
    text = service.client.get("/debug/pprof/heap?gc=1&debug=1").text
    assert text.startswith("heap profile: ")
    assert "@ heap/8192\n" in text
    assert "churn.py:" in text
    assert "# HeapAlloc = " in text
    for which, default in (("heap", "inuse_space"), ("allocs", "alloc_space")):
        profile = pprof._profile_class().FromString(
            gzip.decompress(service.client.get(f"/debug/pprof/{which}").content)
        )
        assert profile.string_table[profile.default_sample_type] == default
        assert profile.period == 4096


def test_what_has_come_in_a_second(service):
    answer = service.client.get("/debug/pprof/allocs?seconds=1")
    profile = pprof._profile_class().FromString(gzip.decompress(answer.content))
    assert 'filename="allocs-delta"' in answer.headers["content-disposition"]
    assert sum(sample.value[1] for sample in profile.sample) > 0
    for query in ("goroutine?seconds=x", "heap?seconds=1&debug=1", "heap?seconds=0"):
        answer = service.client.get(f"/debug/pprof/{query}")
        assert (answer.status_code, answer.text.count("\n")) == (400, 1)


@pytest.mark.slow  # the tool is compiled first, which takes a minute
@pytest.mark.parametrize(("which", "kind"), [("heap", "inuse_space"), ("allocs", "alloc_space"), ("profile", "cpu")])
def test_go_tool_pprof_reads_them(service, tmp_path_factory, tmp_path, which, kind):
    go = shutil.which("go", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    file = tmp_path / "profile.pb.gz"
    query = {"seconds": 1} if which == "profile" else {"gc": 1}
    file.write_bytes(service.client.get(f"/debug/pprof/{which}", params=query).content)
    cache = tmp_path_factory.getbasetemp() / "go-cache"
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOCACHE": str(cache)}
    ran = subprocess.run(
        [go, "tool", "pprof", "-top", str(file)], capture_output=True, text=True, check=True, env=environment
    )
    assert "not available" not in ran.stderr, "it misses nothing"
    top = ran.stdout
    assert f"Type: {kind}" in top
    _, _, rows = top.partition("flat  flat%   sum%        cum   cum%\n")
    shown = [row.split(maxsplit=5)[5] for row in rows.splitlines()]
    assert "churn" in shown[0], top


def test_the_index_lists_all_and_the_command_line_is_there(service):
    index = service.client.get("/debug/pprof/")
    assert index.headers["content-type"].startswith("text/html")
    links = re.findall(r'^ *(\d*)  <a href="(.*?)">', index.text, re.MULTILINE)
    counts = {path.removesuffix("?debug=1"): int(count) for count, path in links if count}
    assert list(counts) == ["allocs", "goroutine", "goroutineleak", "heap"]
    assert counts["allocs"] == counts["heap"] > 0
    others = [path for count, path in links if not count]
    assert others == ["goroutine?debug=2", "profile?seconds=30", "../trace?seconds=5", "cmdline"]
    for path in (*counts, *others):
        assert service.client.head(f"/debug/pprof/{path}").status_code == 200, path
    assert service.client.get("/debug/pprof/cmdline").text.split("\0")[1:4] == ["-m", "gomp", "serve"]


def test_two_who_want_the_cpu_profile_get_one_after_the_other(service):
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(service.client.get, ["/debug/pprof/profile?seconds=1"] * 2))
    assert [a.status_code for a in answers] == [200, 200]
    assert time.monotonic() - began > 1.9
    profile = pprof._profile_class().FromString(gzip.decompress(answers[0].content))
    texts = list(profile.string_table)
    assert [texts[kind.type] for kind in profile.sample_type] == ["samples", "cpu", "wall"]
    assert profile.duration_nanos == pytest.approx(1e9, rel=0.5)
    assert {texts[label.str] for sample in profile.sample for label in sample.label} >= {"P0", "coordinator"}
    assert any("churn" in texts[function.filename] for function in profile.function)


def test_who_would_wait_long_for_a_cpu_profile_is_told_so(rt, monkeypatch):
    monkeypatch.setattr(service_pprof, "PATIENCE_S", 0.1)
    asked = ask_service(rt.name, *["/debug/pprof/profile?seconds=1"] * 2)
    answers = sorted(asyncio.run(asked), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].text.startswith("another CPU profile is being recorded")


def test_where_the_system_allows_no_thread_a_cpu_profile_is_refused_at_once(rt, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    began = time.monotonic()
    (answer,) = asyncio.run(ask_service(rt.name, "/debug/pprof/profile?seconds=20"))
    assert (answer.status_code, answer.text.count("\n")) == (503, 1)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "1.5", "x", "", "99999999999999999999"])
def test_absurd_seconds_are_refused_in_one_line(service, seconds):
    answer = service.client.get(f"/debug/pprof/profile?seconds={seconds}")
    assert answer.status_code == 400
    assert answer.text.startswith("seconds is a whole number from 1 to 600, not ")


def test_a_client_that_goes_away_ends_its_profile(service):
    with socket.create_connection((service.client.base_url.host, service.client.base_url.port)) as gone:
        gone.sendall(b"GET /debug/pprof/profile?seconds=600 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
    assert service.client.get("/debug/pprof/profile?seconds=1").status_code == 200
