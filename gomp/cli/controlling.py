"""``gomp ctl``: the settings of a service that runs, and what else its control listener does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from gomp.cli.options import AsJson

ctl = typer.Typer(help="Change the settings of a running service.")
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
    return _tell(as_json, answer, f"{_in_units(answer['heap_released'])} of the heap are released")


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
    none = "no goroutine waits for ever" if leaked else "there are no goroutines"
    return _tell(as_json, answer, answer["text"].rstrip("\n") or none)


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
