"""Frames that one process has declared, and another is to run: the coordinator keeps them, pickled, by the keys of their types.

Who starts goroutines that others may run has told the coordinator before. Who is to run one asks, and asks again for a while: what the other has
told may still be under way.
"""

from __future__ import annotations

import base64
import pickle
import time

from gomp.errors import GompError
from gomp.runtime import current, handles, pickling, steps
from gomp.runtime.bodies import BodyMeta
from gomp.runtime.frames import FrameMeta
from gomp.runtime.references import key_of

_PATIENCE_S = 5.0
_NAP_S = 0.01

_declared: set[FrameMeta] = set()
handles.on_open(_declared.clear)
handles.on_close(_declared.clear)


def declare(cls: FrameMeta) -> None:
    """Have every process of the runtime know ``cls`` when it meets one, and all that it calls; this one has loaded it."""
    if cls in _declared or not current.is_open():
        return
    for each in steps.reached_from(cls) - _declared:
        text = base64.b64encode(pickling.dumps(each)).decode()
        current.peer().mailbox.post("declare", key=key_of(each), pickle=text)
        _declared.add(each)


def learn(key: int) -> None:
    """Have this process know the frame of that key. Raises GompError, CompileError, or what importing its module raises."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (text := current.peer().ask("declared", key=key)["pickle"]):
        if time.monotonic() > deadline:
            raise GompError("no process has declared the frame that a goroutine has")
        time.sleep(_NAP_S)
    cls: FrameMeta = pickle.loads(base64.b64decode(text))
    if isinstance(cls, BodyMeta):
        cls.know()
    else:
        steps.load(cls)
    if key_of(cls) != key:
        raise GompError(
            f"frame {cls.__name__} is declared otherwise in the process that has started a goroutine with it"
        )
