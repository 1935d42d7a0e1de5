"""Profiles in the format that ``go tool pprof`` reads: profile.proto of github.com/google/pprof, of which what we write is described here.

Gzipped, as Go writes them. Strings are numbers in a table, places and functions records with ids.
"""

from __future__ import annotations

import functools
import gzip
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gomp.runtime.goroutineprofile import Group, addresses
from gomp.runtime.memprofile import MemProfileRecord
from gomp.runtime.sitetable import Site

# Of each message its fields: name, number, kind; a kind in capitals is a message.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "ValueType": [("type", 1, "int64"), ("unit", 2, "int64")],
    "Sample": [("location_id", 1, "uint64*"), ("value", 2, "int64*"), ("label", 3, "Label*")],
    "Label": [("key", 1, "int64"), ("str", 2, "int64"), ("num", 3, "int64"), ("num_unit", 4, "int64")],
    "Line": [("function_id", 1, "uint64"), ("line", 2, "int64")],
    "Mapping": [
        ("id", 1, "uint64"),
        ("has_functions", 7, "bool"),
        ("has_filenames", 8, "bool"),
        ("has_line_numbers", 9, "bool"),
    ],
    "Location": [("id", 1, "uint64"), ("mapping_id", 2, "uint64"), ("address", 3, "uint64"), ("line", 4, "Line*")],
    "Function": [
        ("id", 1, "uint64"),
        ("name", 2, "int64"),
        ("filename", 4, "int64"),
        ("start_line", 5, "int64"),
    ],
    "Profile": [
        ("sample_type", 1, "ValueType*"),
        ("sample", 2, "Sample*"),
        ("mapping", 3, "Mapping*"),
        ("location", 4, "Location*"),
        ("function", 5, "Function*"),
        ("string_table", 6, "string*"),
        ("time_nanos", 9, "int64"),
        ("duration_nanos", 10, "int64"),
        ("period_type", 11, "ValueType"),
        ("period", 12, "int64"),
        ("default_sample_type", 14, "int64"),
    ],
}
_PACKAGE = "perftools.profiles"
MEMORY_KINDS = (
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
)


@functools.cache
def _profile_class() -> Any:
    """The class of the message Profile. Made when it is first needed: most processes write none."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, number, kind in fields:
            made = message.field.add(name=label, number=number)
            made.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in _MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))


class _Strings:
    """The table of strings, which begins with the empty one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


ValueKind = tuple[str, str]  # what is counted, and its unit


@dataclass(frozen=True)
class Sample:
    """Where something was seen, the innermost frame first, and how much of each kind; labels are texts or numbers of bytes."""

    frames: tuple[Site, ...]
    values: tuple[int, ...]
    labels: tuple[tuple[str, str | int], ...] = ()


def encode(
    kinds: Sequence[ValueKind],
    samples: Iterable[Sample],
    period: tuple[ValueKind, int],
    default: str = "",
    duration_ns: int = 0,
) -> bytes:
    """A profile of ``samples``, whose values are of these ``kinds``; one was taken each ``period``. ``default``: the kind that is shown first."""
    samples = list(samples)
    profile, string = _profile_class()(), _Strings()
    for name, unit in kinds:
        profile.sample_type.add(type=string(name), unit=string(unit))
    (name, unit), profile.period = period
    profile.period_type.type, profile.period_type.unit = string(name), string(unit)
    profile.time_nanos, profile.duration_nanos = time.time_ns() - duration_ns, duration_ns
    profile.default_sample_type = string(default)
    places = addresses(sample.frames for sample in samples)
    _add_places(profile, places, string)
    for sample in samples:
        made = profile.sample.add(location_id=[places[frame] for frame in sample.frames], value=sample.values)
        for key, value in sample.labels:
            if isinstance(value, str):
                made.label.add(key=string(key), str=string(value))
            else:
                made.label.add(key=string(key), num=value, num_unit=string("bytes"))
    profile.string_table.extend(string.numbers)
    return gzip.compress(profile.SerializeToString(), mtime=0)


def encode_goroutines(groups: list[Group], name: str = "goroutine") -> bytes:
    """The profile ``name`` of goroutines in ``groups``: one sample a group, which counts them."""
    kind = name, "count"
    samples = (Sample(group.frames, (group.count,), group.labels) for group in groups)
    return encode([kind], samples, (kind, 1))


def encode_memory(records: list[MemProfileRecord], rate: int, default: str = "inuse_space") -> bytes:
    """The profile of what was made and what is in use, of objects sampled at that rate (protomem.go, writeHeapProto)."""
    samples = (
        Sample(
            record.frames,
            (record.alloc_objects, record.alloc_bytes, record.in_use_objects, record.in_use_bytes),
            (("bytes", record.object_bytes),),
        )
        for record in records
    )
    return encode(MEMORY_KINDS, samples, (("space", "bytes"), rate), default)


def _add_places(profile: Any, places: dict[Site, int], string: _Strings) -> None:
    # Says that everything has its name already: else pprof looks for a binary, and complains that there is none.
    profile.mapping.add(id=1, has_functions=True, has_filenames=True, has_line_numbers=True)
    functions: dict[tuple[str, str], int] = {}
    for site, number in places.items():
        key = site.function or "?", site.file
        if key not in functions:
            functions[key] = len(functions) + 1
            # Without a system's name, which pprof would take for one of C++, and drop what is in <>.
            profile.function.add(id=functions[key], name=string(key[0]), filename=string(key[1]))
        location = profile.location.add(id=number, mapping_id=1, address=number)
        location.line.add(function_id=functions[key], line=site.line)
