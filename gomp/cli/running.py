"""Commands that start a runtime: a service, a program, a scenario, a program in a cgroup of its own; and what compiles the kernels for them."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import operator
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gomp.cgroup import LEAST_OF_A_SERVICE, MemoryCgroup
from gomp.cli.options import (
    AsJson,
    ControlKind,
    ControlPort,
    ControlTokenFile,
    Godebug,
    Gogc,
    LogLevel,
    MaxAttached,
    MaxHeap,
    MaxProcs,
    MemoryLimit,
    MemoryLimitShare,
    Metrics,
    MetricsHost,
    MetricsPort,
    Name,
    PacerTapeFile,
    Procs,
    StopDeadline,
)
from gomp.cli.output import EXIT_FAILED, print_table
from gomp.config import RuntimeSettings, ServiceSettings, load
from gomp.errors import ConfigError

if TYPE_CHECKING:
    from gomp.runtime.memstats import MemStats

_LEAST_CONTAINER = 160 << 20  # of a service with two Ps, idle


def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file with the options; see configs/service.toml")] = None,
    procs: Procs = None,
    max_procs: MaxProcs = None,
    max_attached: MaxAttached = None,
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
        max_attached=max_attached,
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


def run(
    program: Annotated[str, typer.Argument(help="a short name from workers/, or a dotted path", show_default=False)],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="the program's parameters")
    ] = None,
    as_json: AsJson = False,
    attach: Annotated[
        str | None, typer.Option(metavar="NAME", help="run it in the runtime of that name, and not in one of its own")
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="with --attach: for a P, if all that it lends are lent")
    ] = 0.0,
    procs: Procs = None,
    max_procs: MaxProcs = None,
    max_attached: MaxAttached = None,
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
    """Run one program in a runtime of its own, and say what it cost; or in one that runs."""
    _warn_of_too_small_a_container()
    arguments = parse_parameters(parameters or [])
    options = {
        "procs": procs,
        "max_procs": max_procs,
        "max_attached": max_attached,
        "gogc": gogc,
        "memory_limit": memory_limit,
        "memory_limit_share": memory_limit_share,
        "max_heap": max_heap,
        "name": name,
        "stop_deadline": stop_deadline,
        "pacer_tape": pacer_tape,
        "godebug": godebug,
        "log_level": log_level,
    }
    if attach is not None and (given := [option for option, value in options.items() if value is not None]):
        raise ConfigError(
            f"--attach is into a runtime that has its options already: leave out --{given[0].replace('_', '-')}"
        )
    if wait and attach is None:
        raise ConfigError("--wait is for a P of a runtime that runs: say which, with --attach NAME")
    settings = load(RuntimeSettings, None, **options)
    from gomp.runtime.attach import attach as attach_to
    from gomp.runtime.programs import check_parameters, find_program
    from gomp.runtime.runtime import Runtime

    # Before a runtime is started for it.
    check_parameters(program, find_program(program), (), arguments)
    with Runtime.of(settings) if attach is None else attach_to(attach, wait) as rt:
        before = rt.stats() if attach is not None else None
        start = time.perf_counter()
        result = rt.run(program, **arguments)
        wall_s = time.perf_counter() - start
        stats = rt.stats()
    if as_json:
        print(json.dumps(report(program, result, wall_s, stats, before), default=str))
    else:
        if result is not None:
            print(result)
        print(summary(wall_s, stats, before))
    return 0


def demo(
    scenario: Annotated[str | None, typer.Argument(help="none lists them", show_default=False)] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="how long its program runs; then it begins anew")] = 3600.0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="show the page in a browser")] = True,
    name: Name = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    metrics: Metrics = None,
    control: ControlKind = None,
    control_port: ControlPort = None,
    control_token_file: ControlTokenFile = None,
    log_level: LogLevel = None,
) -> int:
    """Run a pathology as a service, and show its page."""
    from gomp.demo import open_page_later, scenarios, settings_of, summary_of

    if scenario is None:
        print_table(("NAME", "WHAT IS WRONG"), [(each, summary_of(found)) for each, found in scenarios().items()])
        return 0
    _warn_of_too_small_a_container()
    settings = settings_of(
        scenario,
        seconds,
        name=name,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        metrics=metrics,
        control=control,
        control_port=control_port,
        control_token_file=control_token_file,
        log_level=log_level,
    )
    if open_browser and settings.metrics_port:
        open_page_later(settings)
    from gomp.runtime import coordinator

    return coordinator.main(settings) or 0


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


def report(program: str, result: Any, wall_s: float, stats: MemStats, before: MemStats | None = None) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {"program": program, "result": result, "wall_s": wall_s} | _figures(stats, before)


def summary(wall_s: float, stats: MemStats, before: MemStats | None = None) -> str:
    """One line of figures for people."""
    from gomp.runtime.units import format_bytes, format_time

    f = _figures(stats, before)
    pauses = (
        "" if before else f"pauses {format_time(f['pause_p50_s'])} median, {format_time(f['pause_max_s'])} longest · "
    )
    return (
        f"{format_time(wall_s)} · {'meanwhile, in the whole runtime: ' if before else ''}"
        f"{f['num_gc']} cycles ({f['num_forced_gc']} forced), {format_time(f['gc_cpu_s'])} of CPU · {pauses}"
        f"{f['mallocs']:,} objects, {format_bytes(f['total_alloc'])} allocated · heap {format_bytes(f['heap_sys'])}"
    )


_COUNTED = ("num_gc", "num_forced_gc", "gc_cpu_s", "assist_cpu_s", "total_alloc", "mallocs", "frees")
_PAUSES = ("pause_p50_s", "pause_p99_s", "pause_max_s")
_AS_IT_IS = ("heap_sys", "next_gc", "heap_live")


def _figures(stats: MemStats, before: MemStats | None) -> dict[str, Any]:
    """Of a runtime that ran ``before``: what has been counted since; and no pauses, of which only those of its whole life are known."""
    names = _COUNTED + _AS_IT_IS + (() if before else _PAUSES)
    found = {name: getattr(stats, name) for name in names} | {"mark_cpu_s_per_p": stats.mark_cpu_s_per_p}
    if before:
        found |= {name: found[name] - getattr(before, name) for name in _COUNTED}
        earlier = itertools.chain(before.mark_cpu_s_per_p, itertools.repeat(0.0))  # there may be more Ps now
        found["mark_cpu_s_per_p"] = tuple(map(operator.sub, stats.mark_cpu_s_per_p, earlier))
    return found


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
