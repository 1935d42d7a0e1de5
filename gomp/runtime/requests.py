"""What the coordinator may be told: checked here, once, so that behind it a message has the fields its ``op`` stands for. And how it answers.

Anybody who may open the runtime's socket may write anything into it, and a program may write into its P's.

A request may have a number, ``request``; its answer has the same, so that a process with several threads knows whose it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gomp.config import DEFAULT_PROCS, MAX_PROCS
from gomp.errors import RuntimeLost
from gomp.runtime.channel import MOST_TRACE_MS, Channel, Message
from gomp.runtime.programs import MAX_NAME

_EVERYBODYS_FIELDS: dict[str, dict[str, type]] = {
    "go": {"name": str, "request": int},
    "verify": {"level": int},
    "retainers": {"p": int, "slot": int},
    "stats": {},
    "collect": {},
    "find_leaks": {},
    "free_os_memory": {"now": bool},
    "set": {"setting": str, "value": int},
    "declare": {"key": int, "pickle": str},
    "declared": {"key": int},
    "waits": {"seconds": int},
    "look": {},
    "trace": {"ms": int},
    "end_trace": {},
    "looked": {"n": int, "state": str, "changes": int, "why": str, "waits": list},
}
SETTINGS = ("gogc", "memory_limit", "procs")
_MOST = {"gogc": (1 << 31) - 1, "memory_limit": (1 << 63) - 1, "procs": MAX_PROCS}
_LEAST = {"gogc": -1, "memory_limit": -1, "procs": DEFAULT_PROCS}  # off, auto, and what the system says
_CLIENT_FIELDS = _EVERYBODYS_FIELDS | {"attach": {"build": str, "wait": bool}, "leave": {}}
_P_FIELDS = _EVERYBODYS_FIELDS | {"started": {"g": int}, "done": {"g": int, "ok": bool}}


def fault(message: Message, from_p: bool) -> str:
    """What is wrong with a message, in words; "" if nothing is."""
    fields = (_P_FIELDS if from_p else _CLIENT_FIELDS).get(message.op)
    if fields is None:
        return f"unknown request {message.op[:MAX_NAME]!r}"
    if "request" in message.fields:
        fields = fields | {"request": int}
    for name, kind in fields.items():
        if (
            type(message.fields.get(name)) is not kind
        ):  # True is no number: an index of records, it would be all of them
            return f"{message.op!r} needs {name}, of type {kind.__name__}"
    if message.op == "set":
        return _setting_fault(message["setting"], message["value"])
    if message.op == "trace" and not 0 < message["ms"] <= MOST_TRACE_MS:
        return f"a trace takes 1 to {MOST_TRACE_MS} ms"
    if message.op == "looked" and not all(map(_is_line, message["waits"])):
        return "'looked' needs waits, each a number and a text"
    if "name" in fields and len(message["name"]) > MAX_NAME:
        return f"a name has at most {MAX_NAME} characters"
    return ""


def _is_line(wait: Any) -> bool:
    return isinstance(wait, list) and [type(part) for part in wait] == [int, str]


def _setting_fault(setting: str, value: int) -> str:
    if setting not in SETTINGS:
        return f"there is no setting {setting[:MAX_NAME]!r} to change: there are {', '.join(SETTINGS)}"
    least, most = _LEAST[setting], _MOST[setting]
    return "" if least <= value <= most else f"{setting}={value}: give {least} to {most}"


@dataclass(frozen=True)
class Asker:
    """Who has sent a request, and waits for the answer."""

    channel: Channel
    request: Message

    def answer(self, **fields: Any) -> None:
        self._send(self.request.op, fields)

    def hand(self, descriptors: Sequence[int], **fields: Any) -> None:
        """As :meth:`answer`, with descriptors, which stay open here."""
        with contextlib.suppress(RuntimeLost):
            self.channel.answer(self.request.op, descriptors=descriptors, **self._numbered(fields))

    def refuse(self, problem: str) -> None:
        """Say that the request cannot be served, so that nobody waits for ever."""
        self._send("error", {"text": problem})

    def say(self, op: str, **fields: Any) -> None:
        """Answer with something else than what was asked for."""
        self._send(op, fields)

    def _send(self, op: str, fields: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeLost):
            self.channel.answer(op, **self._numbered(fields))

    def _numbered(self, fields: dict[str, Any]) -> dict[str, Any]:
        number = self.request.fields.get("request")
        return fields | {"request": number} if isinstance(number, int) else fields
