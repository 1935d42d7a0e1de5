"""cloudpickle, with classes of arrays, boxes, channels and maps sent as what they are of: the receiver makes its own, once."""

from __future__ import annotations

import io
from types import CodeType
from typing import Any

import cloudpickle

from gomp.runtime.arrays import Array, rebuilt_class
from gomp.runtime.boxes import box_class, is_box_class, kind_of_box
from gomp.runtime.chan import Chan, ChanMeta, chan_class
from gomp.runtime.counted import counted_class, is_counted_class
from gomp.runtime.frames import FrameMeta
from gomp.runtime.references import ReferenceMeta, is_map_class, map_class

_NO_FILE = "<dynamic-code>"


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ReferenceMeta) and issubclass(obj, Array) and obj is not Array:
            return rebuilt_class, (obj.elem, obj.length)
        if isinstance(obj, ChanMeta) and obj is not Chan:
            return chan_class, (obj.elem,)
        if isinstance(obj, ReferenceMeta) and is_box_class(obj):
            return box_class, (kind_of_box(obj),)
        if is_counted_class(obj):
            return counted_class, (obj.counts,)
        if is_map_class(obj):
            return map_class, (obj.elem, obj.key_kind)
        if isinstance(obj, FrameMeta) and (reduced := obj.reduced()):
            return reduced
        if isinstance(obj, CodeType):  # cloudpickle may leave out its file, which tracebacks, profiles and reports name
            make, args = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if arg == _NO_FILE else arg for arg in args)
        return super().reducer_override(obj)


def dumps(value: Any) -> bytes:
    """``value`` for another process of the runtime."""
    out = io.BytesIO()
    Pickler(out).dump(value)
    return out.getvalue()
