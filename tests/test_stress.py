"""``gomp stress``: services that misuse memory in a real cgroup, and what is said of them."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace

import pytest
from real_cgroup import make_cgroup
from served import gomp
from service_stand_in import StandIn

from gomp.config import NO_LIMIT
from gomp.core import COMPILED
from gomp.errors import ConfigError
from gomp.stress.report import Report, Sample, check_drawable, draw
from gomp.stress.run import parse_memory, programs
from gomp.stress.service import StressedService

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "memory"),
    [("256m", 256 * MIB), ("1g", 1 << 30), ("268435456", 256 * MIB), ("512MiB", 512 * MIB), ("300M", 300 * MIB)],
)
def test_memory_is_written_as_docker_or_go_do(text, memory):
    assert parse_memory(text) == memory


@pytest.mark.parametrize("text", ["", "many", "-1m", "1.5g", "256mb", "64m", "239m", "0"])
def test_other_amounts_are_refused_with_the_fix(text):
    with pytest.raises(ConfigError, match=r"^memory: .*(as 256m or 256MiB|give 240m or more)"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["99999999g", "9" * 30])
def test_more_than_the_machine_has_is_no_limit(text):
    with pytest.raises(ConfigError, match=r"^memory: .* is more than this machine has: give \d+m or less$"):
        parse_memory(text)


def test_there_are_five_programs():
    assert programs() == ["burst_idle", "leak", "ramp", "sawtooth", "thrash"]


def test_an_unknown_program_is_one_line_that_names_those_there_are():
    done = gomp(os.environ, "stress", "flood")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no stress program flood: there are burst_idle, leak" in done.stderr


def sample(t, **values):
    return Sample(t=t, **{field.name: values.get(field.name, 0) for field in fields(Sample) if field.name != "t"})


REPORT = Report(
    program="ramp", memory=256 * MIB, memory_limit=96 * MIB, seconds=2.0, procs=2, peak_charge=192 * MIB, oom_kills=0, deaths=0,
    scrape_failures=0, error="", went_on=True, released=10 * MIB, return_s=1.5,
    samples=(
        sample(0.0), sample(1.0, allocated=100 * MIB, gc_cpu_s=0.5), sample(2.0, allocated=400 * MIB, gc_cpu_s=1.0, cycles=7),
        sample(9.0, allocated=400 * MIB, gc_cpu_s=9.0, cycles=9, ended=1),
    ),
)  # fmt: skip


def test_a_report_of_a_program_that_ended_at_once_has_no_throughput():
    report = replace(REPORT, samples=(sample(0.0, ended=1),))
    assert (report.gc_share, report.rates) == (0.0, [])
    assert "0 MiB/s" in report.text()


def test_a_report_has_the_share_of_collection_and_the_throughput_over_time():
    assert REPORT.gc_share == 0.25
    assert [rate / MIB for rate in REPORT.rates] == [100, 300]
    text = REPORT.text()
    assert "192.0 MiB (75%)" in text
    assert "25.0% in 7 cycles" in text
    assert "200 MiB/s, from 100 to 300" in text
    assert json.loads(json.dumps(REPORT.to_json()))["samples"][2]["cycles"] == 7


def test_the_throughput_of_a_program_that_mostly_rests_is_not_nothing():
    burst = tuple(sample(float(t), allocated=300 * MIB * (t > 1)) for t in range(4))
    assert "100 MiB/s, from 0 to 300" in replace(REPORT, samples=burst).text()


def test_no_memory_limit_is_said_to_be_none(tmp_path):
    stand_in = StandIn()
    stand_in.tell("ready")
    service = StressedService(stand_in.process, "stand-in", stand_in.info["url"], tmp_path / "log")
    try:
        assert service.look().limit == NO_LIMIT
    finally:
        service.close()
        stand_in.close()


def test_a_report_is_a_picture_too(tmp_path):
    pytest.importorskip("matplotlib")
    draw(REPORT, tmp_path / "ramp.png")
    assert (tmp_path / "ramp.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_told_before_the_run(tmp_path):
    pytest.importorskip("matplotlib")
    done = gomp(os.environ, "stress", "ramp", "--png", str(tmp_path / "nowhere" / "x.png"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("gomp: cannot write ")
    there, new = tmp_path / "there.png", tmp_path / "new.png"
    there.write_text("old")
    check_drawable(there)
    check_drawable(new)
    assert (there.read_text(), new.exists()) == ("old", False)


# --- in a cgroup ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cgroups():
    if not COMPILED:
        pytest.skip("runs processes of its own")
    with make_cgroup(256 * MIB):
        pass


def run(*arguments):
    done = gomp(os.environ, "stress", *arguments, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ramp", "burst_idle", "sawtooth", "thrash"])
def test_a_service_survives_under_256_mib(cgroups, program):
    code, report = run(program, "--memory", "256m", "--seconds", "20")
    assert (code, report["oom_kills"], report["deaths"], report["error"], report["went_on"]) == (0, 0, 0, "", True)
    assert report["scrape_failures"] == 0
    assert report["peak_charge"] <= 256 * MIB
    assert report["return_s"] is not None


@pytest.mark.slow
def test_a_leak_ends_with_gomps_own_error_and_a_service_that_goes_on(cgroups):
    code, report = run("leak", "--memory", "256m", "--seconds", "60")
    assert (code, report["oom_kills"], report["went_on"]) == (0, 0, True)
    assert report["error"].startswith("OutOfMemory: ")
