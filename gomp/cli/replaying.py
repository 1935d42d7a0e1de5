"""``gomp pacer``: the pacer's arithmetic, without a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gomp.cli.output import EXIT_FAILED, fail
from gomp.errors import ConfigError

pacer = typer.Typer(help="The pacer's arithmetic, without a runtime.", rich_markup_mode=None)


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
            return fail(f"{tape.name}, line {operation.line}, {operation.op}: {difference}", EXIT_FAILED)
    return 0
