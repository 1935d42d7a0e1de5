"""The frames with which ``group.go(F, ...)`` begins: they call F, and tell the group when that has returned (sync/waitgroup.go, Go)."""

from __future__ import annotations

import functools
from typing import Any

from gomp.runtime.frames import FrameLink, FrameMeta, frame
from gomp.runtime.parts import Link
from gomp.runtime.references import name_of
from gomp.runtime.sync import WaitGroup

_FILE = "<WaitGroup.go>"


def own_slots(cls: FrameMeta) -> tuple[str, str]:
    """Of :func:`counted_class`, the slots of the group and of whether it has called: by names that ``cls`` does not have."""
    names = []
    for name in ("in_group", "has_called"):
        while name in cls.layout.slots:
            name += "_"
        names.append(name)
    return names[0], names[1]


@functools.cache
def counted_class(cls: FrameMeta) -> FrameMeta:
    """The class of frames that call one of ``cls``, whose slots they have, but for those that hold frames."""
    group, has_called = own_slots(cls)
    passed = {name: p for name, (_, p) in cls.layout.slots.items() if not isinstance(p, FrameLink)}
    given = "".join(f", {name}=f.{name}" for name in passed)
    text = (
        "def step(f):\n"
        f"    if f.{has_called}:\n"
        f"        f.{group}.done()\n"
        "        return f.ret()\n"
        f"    f.{has_called} = True\n"
        f"    return f.call(cls{given})\n"
    )
    scope: dict[str, Any] = {"cls": cls, "__name__": __name__}
    exec(compile(text, _FILE, "exec"), scope)
    slots = {
        group: WaitGroup,
        has_called: bool,
        **{name: p.target if isinstance(p, Link) else p for name, p in passed.items()},
    }
    body = {"__annotations__": slots, "__module__": __name__, "step": scope["step"]}
    body["__qualname__"] = f"WaitGroup.go({name_of(cls)})"
    made: Any = frame(type(f"WaitGroup.go({cls.__name__})", (), body))
    made.counts = cls
    return made  # type: ignore[no-any-return]


def is_counted_class(cls: object) -> bool:
    """Whether it was made by :func:`counted_class`, of ``cls.counts``."""
    return isinstance(cls, FrameMeta) and "counts" in vars(cls)
