"""The command line: one line and exit code 2 for whatever the user got wrong; figures as people and programs want them."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp import cli, kernels
from gomp.cgroup import MemoryCgroup, memory_level
from gomp.cli import running
from gomp.config import ServiceSettings
from gomp.errors import ConfigError, HeapCorrupt, OutOfMemory, ProgramError, RuntimeLost
from gomp.runtime import discovery, memstats
from gomp.runtime.programs import RemoteTraceback


def gomp(*arguments, **environment):
    """The real command, in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GO")}
    return subprocess.run(
        [sys.executable, "-m", "gomp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | environment,
    )


@pytest.fixture(autouse=True)
def no_runtimes(tmp_path, monkeypatch):
    """A directory of runtimes of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'."),
        (["run"], "Missing argument 'program'."),
        (["run", "churn", "live"], "'live' is no parameter: write key=value, as depth=18"),
        (["run", "churn", "live=1", "live=2"], "parameter 'live' is given twice"),
        (["run", "churn", "--gogc", "abc"], "gogc: write a whole percentage, or \"off\" (not 'abc')"),
        (["run", "churn", "--procs", "0"], "procs: "),
        (["serve", "--metrics-port", "99999"], "metrics_port: "),
        (["serve", "--config", "/nonexistent.toml"], "cannot read /nonexistent.toml: No such file or directory"),
        (["serve", "--nope"], "No such option"),
        (["verify", "--level", "9"], "Invalid value for '--level'"),
        (["verify"], "no runtime is running: start one with `gomp serve`"),
        (["verify", "nobody"], "no runtime named nobody is running"),
        (["run", "churn", "--wait", "3"], "--wait is for a P of a runtime that runs: say which, with --attach NAME"),
        (["run", "churn", "--attach", "nobody", "--wait", "-1"], "Invalid value for '--wait'"),
        (["run", "nosuch"], "there is no program nosuch"),
        (["run", "no.such"], "there is no program no.such"),
        (["run", "binary_trees", "depht=3"], "its parameters are depth, goroutines"),
    ],
)  # fmt: skip
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert cli.run_command(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gomp: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_real_command_reports_a_malformed_gomemlimit():
    done = gomp("run", "binary_trees", GOMEMLIMIT="1GB")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gomp: malformed GOMEMLIMIT='1GB': write ")
    assert done.stderr.count("\n") == 1


def test_the_real_command_knows_its_version_and_says_how_it_is_used():
    assert gomp("--version").stdout.startswith("gomp 0.")
    usage = gomp()
    assert usage.returncode == 0
    assert all(command in usage.stdout for command in ("serve", "run", "ls", "verify", "kernels"))


def test_each_flag_is_an_option_with_its_own_description(capsys):
    assert cli.run_command(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in ServiceSettings.model_fields.items():
        if name != "programs":
            assert f"--{name.replace('_', '-')} " in text
            assert " ".join(field.description.split()[:4]) in text


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("no"), 2, "gomp: no\n"),
        (RuntimeLost("gone"), 1, "gomp: gone\n"),
        (OutOfMemory("full"), 1, "gomp: full\n"),
        (OutOfMemory(), 1, "gomp: The heap has no room for an allocation, even after a last-resort collection.\n"),
        (ProgramError("it raised", "Traceback: here\n"), 1, "Traceback: here\ngomp: it raised\n"),
        (HeapCorrupt("span 3"), 3, "gomp: the heap is corrupt: span 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_failure_has_its_exit_code(error, code, message, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(discovery, "list_runtimes", fail)
    assert cli.run_command(["ls"]) == code
    assert capsys.readouterr().err == message


def test_a_program_that_raises_is_shown_with_the_traceback_of_its_p(monkeypatch, capsys):
    def fail():
        error = KeyError("x")
        error.__cause__ = RemoteTraceback("Traceback (most recent call last):\n  in the program\nKeyError: 'x'\n")
        raise error

    monkeypatch.setattr(discovery, "list_runtimes", fail)
    assert cli.run_command(["ls"]) == 1
    err = capsys.readouterr().err
    assert (
        err
        == "Traceback (most recent call last):\n  in the program\nKeyError: 'x'\ngomp: the program raised KeyError: 'x'\n"
    )


def test_our_own_bugs_are_not_hidden(monkeypatch):
    def fail():
        raise AssertionError("a bug")

    monkeypatch.setattr(discovery, "list_runtimes", fail)
    with pytest.raises(AssertionError, match="a bug"):
        cli.run_command(["ls"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("18", 18), ("-1", -1), ("0.5", 0.5), ("true", True), ("false", False), ("[1, 2]", [1, 2]), ("text", "text"), ("a.b", "a.b"), ("", ""),
     ("'18'", "18"), ("1MiB", "1MiB")],
)  # fmt: skip
def test_a_parameter_is_read_as_what_it_looks_like(text, value):
    assert running.parse_parameters([f"key={text}"]) == {"key": value}


@given(st.text())
def test_any_text_is_a_value(text):
    running.parse_value(text)


def test_a_value_may_hold_equals_signs():
    assert running.parse_parameters(["a=b=c", "n=1"]) == {"a": "b=c", "n": 1}


def test_the_report_has_the_fields_that_scripts_rely_on(mapped):
    report = json.loads(json.dumps(running.report("churn", 7, 1.5, memstats.read())))
    assert (report["program"], report["result"], report["wall_s"]) == ("churn", 7, 1.5)
    assert set(report) == {
        "program", "result", "wall_s", "num_gc", "num_forced_gc", "gc_cpu_s", "assist_cpu_s", "pause_p50_s", "pause_p99_s", "pause_max_s",
        "heap_sys", "total_alloc", "mallocs", "frees", "next_gc", "heap_live", "mark_cpu_s_per_p",
    }  # fmt: skip
    assert report["mark_cpu_s_per_p"] == [0.0, 0.0]
    assert "0 cycles (0 forced)" in running.summary(1.5, memstats.read())


def test_a_runtime_that_ran_before_is_reported_from_then_on(mapped):
    """Not what others have cost in it; of its pauses, only those of its whole life are known."""
    before = dataclasses.replace(
        memstats.read(), num_gc=40, num_forced_gc=3, total_alloc=1 << 30, mallocs=1000, procs=1
    )
    now = dataclasses.replace(before, num_gc=42, total_alloc=before.total_alloc + 2048, mallocs=1010, procs=2)
    report = running.report("churn", 7, 1.5, now, before)
    assert [report[name] for name in ("num_gc", "num_forced_gc", "total_alloc", "mallocs")] == [2, 0, 2048, 10]
    assert report["mark_cpu_s_per_p"] == (0.0, 0.0)
    assert not {name for name in report if name.startswith("pause")}
    assert running.summary(1.5, now, before).startswith(
        "1.5 s · meanwhile, in the whole runtime: 2 cycles (0 forced), 0 of CPU · 10 objects, 2 KiB allocated · heap "
    )


def test_ls_shows_what_runs(capsys):
    assert cli.run_command(["ls"]) == 0
    assert capsys.readouterr().out == "NAME  PS  HEAP  PID  ATTACHED\n"
    entry = discovery.Registration("web")
    try:
        # The lock is this process's own, so only another process sees the entry as taken.
        entry.describe(discovery.RuntimeInfo("web", 2, 64 << 20, 77))
        assert gomp("ls").stdout == "NAME  PS  HEAP    PID  ATTACHED\nweb   2   64 MiB  77\n"
        listed = json.loads(gomp("ls", "--json").stdout)["runtimes"]
        entry.describe(discovery.RuntimeInfo("web", 2, 64 << 20, 77, attached=[os.getpid(), 1 << 30]))
        _, web, other = gomp("ls").stdout.splitlines()
    finally:
        entry.remove()
    assert [(r["name"], r["ps"], r["heap_bytes"], r["pid"]) for r in listed] == [("web", 2, 64 << 20, 77)]
    assert f" {os.getpid()} (" in web
    assert other == f"{'':{web.index(str(os.getpid()))}}{1 << 30} ('?')"


class Client:
    """A connection to a runtime whose heap has the given problems."""

    def __init__(self, problems):
        self.info = discovery.RuntimeInfo("web", 2, 64 << 20, 77)
        self.problems = problems

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def verify(self, level):
        return {"level": level, "spans": 1200, "problems": self.problems}


@pytest.mark.parametrize(
    ("problems", "code", "out", "err"),
    [
        ([], 0, "web: verified at level 2: 1,200 spans\n", ""),
        (
            ["span 3: 5 slots, not 4", "page 9"],
            3,
            "span 3: 5 slots, not 4\npage 9\n",
            "gomp: the heap is corrupt: 2 problems in web\n",
        ),
    ],
)
def test_verify_says_what_it_found(problems, code, out, err, monkeypatch, capsys):
    monkeypatch.setattr(discovery, "connect", lambda name: Client(problems))
    assert cli.run_command(["verify", "--level", "2"]) == code
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize(("mib", "is_told"), [(128, True), (160, False), (None, False)])
def test_a_container_that_is_too_small_is_told_first_with_what_would_do(mib, is_told, tmp_path, monkeypatch, capsys):
    (tmp_path / "memory.max").write_text("max" if mib is None else str(mib << 20))
    cgroup = MemoryCgroup([memory_level(tmp_path, is_v2=True)])
    monkeypatch.setattr(MemoryCgroup, "of_this_process", lambda: cgroup)
    assert cli.run_command(["run", "nowhere.at_all"]) == 2
    told, *others = capsys.readouterr().err.splitlines()
    assert bool(others) == is_told
    if is_told:
        assert told.startswith("gomp: the cgroup's limit of 128.0 MiB is less than the 160 MiB that the interpreters")
        assert told.endswith("give the container 240 MiB or more")


def test_a_scenario_takes_what_a_service_does(monkeypatch):
    started = []
    monkeypatch.setattr("gomp.runtime.coordinator.main", started.append)
    told = [
        "--name",
        "ward",
        "--metrics",
        "all",
        "--metrics-host",
        "0.0.0.0",
        "--metrics-port",
        "0",
        "--control",
        "off",
    ]
    assert cli.run_command(["demo", "death_spiral", *told]) == 0
    (settings,) = started
    assert (settings.name, settings.metrics, settings.metrics_host, settings.control) == (
        "ward",
        "all",
        "0.0.0.0",
        "off",
    )
    assert [program.program for program in settings.programs] == ["scenarios.death_spiral"]


def test_there_is_no_such_scenario(capsys):
    assert cli.run_command(["demo", "nosuch"]) == 2
    assert capsys.readouterr().err.startswith("gomp: there is no scenario nosuch; there are assist_tax, death_spiral")


def test_progress_is_told_of_each_kernel(capsys):
    with kernels.Progress("compiling") as bar:
        for done in range(1, 11):
            bar.show(done, 10)
    assert "compiling" in capsys.readouterr().err


def test_progress_that_never_began_shows_nothing(capsys):
    with kernels.Progress():
        pass
    assert capsys.readouterr().err == ""
