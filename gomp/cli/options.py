"""Options that several commands have: each field of the settings is one, with its own description."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gomp.config import ServiceSettings


def _flag(name: str) -> Any:
    """The flag of an option: its text is the option's, and its value is checked where the option is described."""
    field = ServiceSettings.model_fields[name]
    return typer.Option(f"--{name.replace('_', '-')}", metavar=name.rpartition("_")[2].upper(), help=field.description)


Procs = Annotated[str | None, _flag("procs")]
MaxProcs = Annotated[str | None, _flag("max_procs")]
MaxAttached = Annotated[str | None, _flag("max_attached")]
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
