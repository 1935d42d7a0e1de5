"""The command line: reads what was asked, hands it on, and says in one line what was wrong with it.

Exit codes: 0 done · 1 the program or the runtime failed · 2 the request was wrong · 3 the heap is corrupt · 130 interrupted.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from gomp.cgroup import LEAST_OF_A_SERVICE, MemoryCgroup
from gomp.config import RuntimeSettings, ServiceSettings, check_system, load
from gomp.errors import ConfigError, GompError, HeapCorrupt, ProgramError

if TYPE_CHECKING:
    from gomp.runtime.memstats import MemStats

EXIT_FAILED, EXIT_USAGE, EXIT_CORRUPT, EXIT_INTERRUPTED = 1, 2, 3, 130
_LEAST_CONTAINER = 160 << 20  # of a service with two Ps, idle

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _flag(name: str) -> Any:
    """The flag of an option: its text is the option's, and its value is checked where the option is described."""
    field = ServiceSettings.model_fields[name]
    return typer.Option(f"--{name.replace('_', '-')}", metavar=name.rpartition("_")[2].upper(), help=field.description)


Procs = Annotated[str | None, _flag("procs")]
MaxProcs = Annotated[str | None, _flag("max_procs")]
Gogc = Annotated[str | None, _flag("gogc")]
MemoryLimit = Annotated[str | None, _flag("memory_limit")]
MemoryLimitShare = Annotated[str | None, _flag("memory_limit_share")]
MaxHeap = Annotated[str | None, _flag("max_heap")]
Name = Annotated[str | None, _flag("name")]
StopDeadline = Annotated[str | None, _flag("stop_deadline")]
PacerTapeFile = Annotated[str | None, _flag("pacer_tape")]
Godebug = Annotated[str | None, _flag("godebug")]
LogLevel = Annotated[str | None, _flag("log_level")]
MetricsHost = Annotated[str | None, _flag("metrics_host")]
Metrics = Annotated[str | None, _flag("metrics")]
MetricsPort = Annotated[str | None, _flag("metrics_port")]
ControlKind = Annotated[str | None, _flag("control")]
ControlPort = Annotated[str | None, _flag("control_port")]
ControlTokenFile = Annotated[str | None, _flag("control_token_file")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]


@app.callback(help="Go's memory system as a multi-process Python runtime.")
def _options(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """The options of ``gomp`` itself; --version is answered before anything is parsed."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file with the options; see configs/service.toml")] = None,
    procs: Procs = None,
    max_procs: MaxProcs = None,
    gogc: Gogc = None,
    memory_limit: MemoryLimit = None,
    memory_limit_share: MemoryLimitShare = None,
    max_heap: MaxHeap = None,
    name: Name = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    metrics: Metrics = None,
    control: ControlKind = None,
    control_port: ControlPort = None,
    control_token_file: ControlTokenFile = None,
    stop_deadline: StopDeadline = None,
    pacer_tape: PacerTapeFile = None,
    godebug: Godebug = None,
    log_level: LogLevel = None,
) -> int:
    """Run as a service until SIGTERM or Ctrl-C."""
    _warn_of_too_small_a_container()
    settings = load(
        ServiceSettings,
        config,
        procs=procs,
        max_procs=max_procs,
        gogc=gogc,
        memory_limit=memory_limit,
        memory_limit_share=memory_limit_share,
        max_heap=max_heap,
        name=name,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        metrics=metrics,
        control=control,
        control_port=control_port,
        control_token_file=control_token_file,
        stop_deadline=stop_deadline,
        pacer_tape=pacer_tape,
        godebug=godebug,
        log_level=log_level,
    )
    from gomp.runtime import coordinator

    return coordinator.main(settings) or 0


@app.command()
def run(
    program: Annotated[str, typer.Argument(help="a short name from workers/, or a dotted path", show_default=False)],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="the program's parameters")
    ] = None,
    as_json: AsJson = False,
    procs: Procs = None,
    max_procs: MaxProcs = None,
    gogc: Gogc = None,
    memory_limit: MemoryLimit = None,
    memory_limit_share: MemoryLimitShare = None,
    max_heap: MaxHeap = None,
    name: Name = None,
    stop_deadline: StopDeadline = None,
    pacer_tape: PacerTapeFile = None,
    godebug: Godebug = None,
    log_level: LogLevel = None,
) -> int:
    """Run one program in a runtime of its own, and say what it cost."""
    _warn_of_too_small_a_container()
    arguments = parse_parameters(parameters or [])
    settings = load(
        RuntimeSettings,
        procs=procs,
        max_procs=max_procs,
        gogc=gogc,
        memory_limit=memory_limit,
        memory_limit_share=memory_limit_share,
        max_heap=max_heap,
        name=name,
        stop_deadline=stop_deadline,
        pacer_tape=pacer_tape,
        godebug=godebug,
        log_level=log_level,
    )
    from gomp.runtime.programs import check_parameters, find_program
    from gomp.runtime.runtime import Runtime

    # Before a runtime is started for it.
    check_parameters(program, find_program(program), (), arguments)
    with Runtime.of(settings) as rt:
        start = time.perf_counter()
        result = rt.run(program, **arguments)
        wall_s = time.perf_counter() - start
        stats = rt.stats()
    if as_json:
        print(json.dumps(report(program, result, wall_s, stats), default=str))
    else:
        if result is not None:
            print(result)
        print(summary(wall_s, stats))
    return 0


@app.command(name="ls")
def list_(as_json: AsJson = False) -> int:
    """List this user's runtimes."""
    from gomp.runtime.discovery import list_runtimes
    from gomp.runtime.units import format_bytes

    runtimes = [asdict(runtime) for runtime in list_runtimes()]
    if as_json:
        print(json.dumps({"runtimes": runtimes}))
        return 0
    rows = [(r["name"], str(r["ps"]), format_bytes(r["heap_bytes"]), str(r["pid"])) for r in runtimes]
    print_table(("NAME", "PS", "HEAP", "PID"), rows)
    return 0


@app.command()
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


@app.command()
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


@app.command()
def kernels(
    modules: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE]...", help="also compile the functions of these, and below")
    ] = None,
) -> int:
    """Compile whatever is not in the cache yet, so that later starts are short."""
    from gomp.core.jit import cache_directory
    from gomp.kernels import load_all_kernels
    from gomp.runtime.ahead import compile_ahead

    print(f"{load_all_kernels()} kernels in {cache_directory()}")
    if modules:
        print(f"{compile_ahead(modules)} compiled functions of {', '.join(modules)}")
    return 0


pacer = typer.Typer(help="The pacer's arithmetic, without a runtime.", rich_markup_mode=None)
app.add_typer(pacer, name="pacer")


@pacer.callback()
def _pacer() -> None:
    """So that ``replay`` is a command of its own and not the only one."""


@pacer.command(name="replay")
def replay_tape(
    tape: Annotated[Path, typer.Argument(help="operations, one JSON object a line; .gz is unpacked")],
    kind: Annotated[str, typer.Option(help="pacer, goals, workers, limiter or scavenger")] = "pacer",
    check: Annotated[bool, typer.Option("--check", help="say nothing but the first difference from the tape")] = False,
) -> int:
    """Perform the operations of a tape and print what comes out, one JSON line each, in the tape's own fields."""
    from gomp.runtime.replay import REPLAYS, Difference, compare, in_fields_of, replay

    if kind not in REPLAYS:
        raise ConfigError(f"--kind {kind}: there are {', '.join(REPLAYS)}")
    for operation, found in replay(tape, kind):
        if not check:
            print(json.dumps(in_fields_of(operation.expected, found)))
            continue
        try:
            compare(operation.expected, found)
        except Difference as difference:
            return _fail(f"{tape.name}, line {operation.line}, {operation.op}: {difference}", EXIT_FAILED)
    return 0


# --- changing settings ------------------------------------------------------------------------------------------------

ctl = typer.Typer(help="Change the settings of a running service.")
app.add_typer(ctl, name="ctl")
OfRuntime = Annotated[str | None, typer.Option("--name", help="which runtime; the only one running, if left out")]
Url = Annotated[str | None, typer.Option("--url", help="of its control listener, if it has no socket here")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="file with the token that the URL wants")]
_TAKES_NEGATIVE = {"ignore_unknown_options": True}  # -1 is a value: what is wrong with one, validation says


@ctl.callback(invoke_without_command=True)
def _of_all_commands(
    context: typer.Context,
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """What each command takes may be said before it as well."""
    given = {"name": name, "url": url, "token_file": token_file, "as_json": as_json}
    defaults = {option: value for option, value in given.items() if value}
    context.default_map = dict.fromkeys(cast(TyperGroup, context.command).commands, defaults)
    if context.invoked_subcommand is None:
        print(context.get_help())


def _ask(
    name: str | None, url: str | None, token_file: Path | None, method: str, path: str, value: str | None = None
) -> dict[str, Any]:
    from gomp.ctl import Control

    control = Control.at_url(url, token_file) if url else Control.of_runtime(name, token_file)
    return control.ask(method, path, value)


def _in_units(nbytes: int | str) -> str:
    """A number of bytes, and what people read; a word as it is."""
    from gomp.runtime.units import format_bytes

    return f"{nbytes} bytes ({format_bytes(nbytes)})" if isinstance(nbytes, int) else nbytes


def _tell(as_json: bool, answer: dict[str, Any], text: str) -> int:
    print(json.dumps(answer) if as_json else text)
    return 0


@ctl.command(context_settings=_TAKES_NEGATIVE)
def gogc(
    percent: Annotated[str, typer.Argument(help="heap growth in percent of the live heap, or off")],
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Set GOGC."""
    answer = _ask(name, url, token_file, "PUT", "/control/gogc", percent)
    return _tell(as_json, answer, f"gogc is {answer['new']} now; it was {answer['old']}")


@ctl.command(name="memory-limit", context_settings=_TAKES_NEGATIVE)
def memory_limit(
    limit: Annotated[str, typer.Argument(help="bytes, as 512MiB, or auto, or off")],
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Set the memory limit."""
    answer = _ask(name, url, token_file, "PUT", "/control/memory-limit", limit)
    return _tell(as_json, answer, f"memory_limit is {_in_units(answer['new'])} now; it was {_in_units(answer['old'])}")


@ctl.command(name="procs", context_settings=_TAKES_NEGATIVE)
def set_procs(
    number: Annotated[str, typer.Argument(help="how many Ps run programs, or auto: as the CPU quota says")],
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Set GOMAXPROCS."""
    answer = _ask(name, url, token_file, "PUT", "/control/procs", number)
    return _tell(as_json, answer, f"procs is {answer['new']} now; it was {answer['old']}")


@ctl.command(name="gc")
def collect(name: OfRuntime = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> int:
    """Run a whole collection, and wait for it."""
    answer = _ask(name, url, token_file, "POST", "/control/gc")
    return _tell(as_json, answer, f"collected; {answer['num_gc']} cycles so far")


@ctl.command(name="free-os-memory")
def free_os_memory(
    now: Annotated[
        bool, typer.Option(help="also what stays in memory until somebody needs it (madvdontneed=0)")
    ] = False,
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Run a whole collection, and return everything that is free to the system."""
    answer = _ask(name, url, token_file, "POST", f"/control/free-os-memory{'?now=true' if now else ''}")
    return _tell(as_json, answer, f"{_in_units(answer['heap_released'])} of the heap are returned")


@ctl.command()
def goroutines(
    leaked: Annotated[bool, typer.Option(help="only those that wait for ever: a collection finds them first")] = False,
    grouped: Annotated[bool, typer.Option(help="those together that stand at the same lines")] = False,
    name: OfRuntime = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> int:
    """Show what each goroutine does, where it stands and where it was started."""
    query = f"debug={1 if grouped else 2}&leaked={str(leaked).lower()}"
    answer = _ask(name, url, token_file, "GET", f"/control/goroutines?{query}")
    return _tell(as_json, answer, answer["text"].rstrip("\n"))


@app.command()
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
        signal.signal(signal.SIGINT, lambda *_: recording.stop())
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


@app.command()
def stress(
    program: Annotated[str, typer.Argument(help="ramp, burst_idle, sawtooth, thrash or leak", show_default=False)],
    memory: Annotated[str, typer.Option(help="limit of its cgroup, as 256m")] = "256m",
    seconds: Annotated[float, typer.Option(min=1.0, help="how long the program runs")] = 60.0,
    png: Annotated[Path | None, typer.Option(help="file for a picture")] = None,
    as_json: AsJson = False,
) -> int:
    """Run a program that misuses memory in a cgroup of its own, and say what came of it."""
    from gomp.stress.report import check_drawable, draw
    from gomp.stress.run import parse_memory, run

    if png:
        check_drawable(png)
    done = run(program, parse_memory(memory), seconds)
    print(json.dumps(done.to_json()) if as_json else done.text())
    if png:
        draw(done, png)
    return 0 if done.went_on and done.oom_kills == 0 else EXIT_FAILED


@app.command()
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


@app.command()
def demo(
    name: Annotated[str | None, typer.Argument(help="the scenario; none lists them", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="how long its program runs; then it begins anew")] = 3600.0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="show the page in a browser")] = True,
    metrics_port: MetricsPort = None,
    log_level: LogLevel = None,
) -> int:
    """Run a pathology as a service, and show its page."""
    from gomp.demo import open_page_later, scenarios, settings_of, summary_of

    if name is None:
        print_table(("NAME", "WHAT IS WRONG"), [(each, summary_of(found)) for each, found in scenarios().items()])
        return 0
    settings = settings_of(name, seconds, metrics_port=metrics_port, log_level=log_level)
    if open_browser and settings.metrics_port:
        open_page_later(f"http://127.0.0.1:{settings.metrics_port}/")
    from gomp.runtime import coordinator

    return coordinator.main(settings) or 0


@ctl.command()
def show(name: OfRuntime = None, url: Url = None, token_file: TokenFile = None, as_json: AsJson = False) -> int:
    """Show the settings in force."""
    answer = _ask(name, url, token_file, "GET", "/control")
    limit, procs = (" (auto)" if answer[name] else "" for name in ("memory_limit_is_auto", "procs_are_auto"))
    text = (
        f"gogc is {answer['gogc']}, memory_limit is {_in_units(answer['memory_limit'])}{limit}, "
        f"procs is {answer['procs']}{procs}, num_gc is {answer['num_gc']}"
    )
    return _tell(as_json, answer, text)


# --- what goes in and what comes out ----------------------------------------------------------------------------------


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as keyword arguments: numbers, true, false, lists and dicts are read as such, anything else is text."""
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{text!r} is no parameter: write key=value, as depth=18")
        if key in arguments:
            raise ConfigError(f"parameter {key!r} is given twice")
        arguments[key] = parse_value(value)
    return arguments


def parse_value(text: str) -> Any:
    """A number, a boolean, a list or dict of such, or else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return text


def report(program: str, result: Any, wall_s: float, stats: MemStats) -> dict[str, Any]:
    """What ``--json`` prints."""
    names = (
        "num_gc", "num_forced_gc", "gc_cpu_s", "assist_cpu_s", "pause_p50_s", "pause_p99_s", "pause_max_s",
        "heap_sys", "total_alloc", "mallocs", "frees", "next_gc", "heap_live", "mark_cpu_s_per_p",
    )  # fmt: skip
    return {"program": program, "result": result, "wall_s": wall_s} | {name: getattr(stats, name) for name in names}


def summary(wall_s: float, stats: MemStats) -> str:
    """One line of figures for people."""
    from gomp.runtime.units import format_bytes, format_time

    return (
        f"{format_time(wall_s)} · {stats.num_gc} cycles ({stats.num_forced_gc} forced), {format_time(stats.gc_cpu_s)} of CPU · "
        f"pauses {format_time(stats.pause_p50_s)} median, {format_time(stats.pause_max_s)} longest · "
        f"{stats.mallocs:,} objects, {format_bytes(stats.total_alloc)} allocated · heap {format_bytes(stats.heap_sys)}"
    )


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest entry."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# --- the way in -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``gomp`` command. Ends the process."""
    # Importing numpy would start a thread, and the coordinator must have only one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code; whatever went wrong is on stderr."""
    if "--version" in arguments[:1]:
        print(f"gomp {metadata.version('gomp')}")
        return 0
    try:
        check_system()
        return app(list(arguments) or ["--help"], prog_name="gomp", standalone_mode=False) or 0
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except HeapCorrupt as error:
        return _fail(f"the heap is corrupt: {error}", EXIT_CORRUPT)
    except GompError as error:
        sys.stderr.write(error.remote_traceback if isinstance(error, ProgramError) else "")
        return _fail(str(error) or type(error).__doc__ or type(error).__name__, EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the output cannot be written: {error.strerror}", EXIT_USAGE)
    except Exception as error:
        # Typer's usage errors, by what they can do: where their class lives depends on its version.
        if hasattr(error, "format_message"):
            return _fail(error.format_message(), EXIT_USAGE)
        from gomp.runtime.programs import RemoteTraceback

        if not isinstance(error.__cause__, RemoteTraceback):
            raise
        # What a program raised comes with the traceback of the P where it ran; ours says nothing more.
        print(str(error.__cause__).strip().strip('"').strip(), file=sys.stderr)
        return _fail(f"the program raised {type(error).__name__}: {error}", EXIT_FAILED)


def _warn_of_too_small_a_container() -> None:
    """Before anything large is loaded: where there is no room for that either, the kernel kills this process, which then says nothing."""
    level = MemoryCgroup.of_this_process().strictest()
    limit = level.limit() if level else None
    if limit is not None and limit < _LEAST_CONTAINER:
        print(
            f"gomp: the cgroup's limit of {limit / 2**20:.1f} MiB is less than the {_LEAST_CONTAINER >> 20} MiB that the interpreters take: "
            f"the kernel may kill some of them; give the container {LEAST_OF_A_SERVICE >> 20} MiB or more",
            file=sys.stderr,
            flush=True,
        )


def _fail(message: str, code: int) -> int:
    print(f"gomp: {' '.join(message.split())}", file=sys.stderr)
    return code
