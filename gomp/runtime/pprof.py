"""Profiles in the format that ``go tool pprof`` reads: profile.proto of github.com/google/pprof, of which what we write is described here.

Gzipped, as Go writes them. Strings are numbers in a table, places and functions records with ids.
"""

from __future__ import annotations

import functools
import gzip
import time
from typing import Any

from gomp.runtime.goroutineprofile import Group, addresses
from gomp.runtime.sitetable import Site

# Of each message its fields: name, number, kind; a kind in capitals is a message.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "ValueType": [("type", 1, "int64"), ("unit", 2, "int64")],
    "Sample": [("location_id", 1, "uint64*"), ("value", 2, "int64*"), ("label", 3, "Label*")],
    "Label": [("key", 1, "int64"), ("str", 2, "int64")],
    "Line": [("function_id", 1, "uint64"), ("line", 2, "int64")],
    "Location": [("id", 1, "uint64"), ("address", 3, "uint64"), ("line", 4, "Line*")],
    "Function": [
        ("id", 1, "uint64"),
        ("name", 2, "int64"),
        ("system_name", 3, "int64"),
        ("filename", 4, "int64"),
        ("start_line", 5, "int64"),
    ],
    "Profile": [
        ("sample_type", 1, "ValueType*"),
        ("sample", 2, "Sample*"),
        ("location", 4, "Location*"),
        ("function", 5, "Function*"),
        ("string_table", 6, "string*"),
        ("time_nanos", 9, "int64"),
        ("period_type", 11, "ValueType"),
        ("period", 12, "int64"),
    ],
}
_PACKAGE = "perftools.profiles"


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
                made.type = {"int64": field.TYPE_INT64, "uint64": field.TYPE_UINT64, "string": field.TYPE_STRING}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))


class _Strings:
    """The table of strings, which begins with the empty one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def encode(groups: list[Group], name: str = "goroutine") -> bytes:
    """The profile ``name`` of goroutines in ``groups``: one sample a group, which counts them."""
    profile, string = _profile_class()(), _Strings()
    kind = profile.sample_type.add(type=string(name), unit=string("count"))
    profile.period_type.CopyFrom(kind)
    profile.period = 1
    profile.time_nanos = time.time_ns()
    places = addresses(groups)
    _add_places(profile, places, string)
    for group in groups:
        sample = profile.sample.add(location_id=[places[frame] for frame in group.frames], value=[group.count])
        for key, value in group.labels:
            sample.label.add(key=string(key), str=string(value))
    profile.string_table.extend(string.numbers)
    return gzip.compress(profile.SerializeToString(), mtime=0)


def _add_places(profile: Any, places: dict[Site, int], string: _Strings) -> None:
    functions: dict[tuple[str, str], int] = {}
    for site, number in places.items():
        key = site.function or "?", site.file
        if key not in functions:
            functions[key] = len(functions) + 1
            profile.function.add(
                id=functions[key], name=string(key[0]), system_name=string(key[0]), filename=string(key[1])
            )
        location = profile.location.add(id=number, address=number)
        location.line.add(function_id=functions[key], line=site.line)
