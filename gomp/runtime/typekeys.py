"""Which class a type in shared memory is: from its key to what this process has declared.

A key says nothing but that two types are one. Of a type that this process has declared otherwise, what the other process has said of it in the type
table tells which field differs.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable
from itertools import chain
from typing import Any

from gomp.runtime import type_table
from gomp.runtime.boxes import box_class
from gomp.runtime.kinds import SCALARS, scalar
from gomp.runtime.references import (
    LAYOUT_BITS,
    array_class,
    declared_classes,
    is_struct,
    key_of,
    layout_of,
    map_class,
    name_hash,
    name_of,
    reached_from,
    trait,
)

_ELSEWHERE = "it, or a struct that it refers to, has other fields there"
_by_key: dict[int, Any] = {}


def class_of_key(key: int, among: Iterable[Any] = ()) -> Any:
    """The class that this process declared for a type: one that ``among`` leads to, or else the first.

    TypeError if it has not, or has another of that name.
    """
    reached = reached_from(among)
    for cls in chain(reached, (made for each in reached for made in _made_of(each))):
        if key_of(cls) == key:
            return cls
    if key not in _by_key:
        _learn_keys()
    if key in _by_key:
        return _by_key[key]
    for cls in reversed(declared_classes()):
        if name_hash(cls) == key >> LAYOUT_BITS:
            raise TypeError(
                f"an object of {name_of(cls)}, which was declared differently where the object comes from: {_difference(cls)}; "
                "declare them alike in both processes"
            )
    called_there = type_table.description(key).partition("\n")[0] or "a struct"
    raise TypeError(
        f"an object of {called_there} that this process has not declared: import the module that declares it first"
    )


def _learn_keys() -> None:
    """Of the structs that came by cloudpickle, or name others that were declared later; and of the arrays and maps of what there is."""
    for kind in SCALARS.values():
        array_class(kind)
        box_class(kind)
    for cls in declared_classes():
        try:
            _by_key.setdefault(key_of(cls), cls)
            for made in _made_of(cls):
                _by_key.setdefault(key_of(made), made)
        except TypeError:  # a struct that it refers to is not declared: this process has none of its objects
            continue


def _made_of(cls: Any) -> list[Any]:
    """The arrays and maps that another process may have made of a class without this one having named them."""
    from gomp.runtime.parts import ByValue

    if is_struct(cls):
        arrays = [array_class(cls), array_class(ByValue(cls))]
    elif trait(cls, "is_text"):
        arrays = [array_class(cls)]
    else:
        return _maps_of(cls) if scalar(trait(cls, "elem")) and not trait(cls, "length") else []
    return [*arrays, *(made for elem in (cls, *arrays) for made in _maps_of(elem))]


def _maps_of(elem: Any) -> list[Any]:
    from gomp.runtime.mapkeys import ANY_KEY, KIND_NAMES

    return [map_class(elem, kind) for kind in (ANY_KEY, *KIND_NAMES)]


def _difference(cls: Any) -> str:
    """What another process has declared otherwise, as far as the type table says: of a class, or of one that it leads to."""
    for each in reached_from([cls]):
        ours = layout_of(each).text
        for theirs in type_table.descriptions(name_hash(each)):
            if is_struct(each) and not (
                theirs == ours if _is_whole(theirs) else ours.startswith(theirs.rstrip("\ufffd"))
            ):
                known = _fields(theirs)
                return _field_that_differs(each, _fields(ours), known, None if _is_whole(theirs) else len(known))
    return _ELSEWHERE


def _is_whole(text: str) -> bool:
    """Whether the text of a struct's layout was short enough for the type table."""
    return text.endswith("]")


def _fields(text: str) -> dict[str, tuple[int, str]]:
    """The offsets and kinds of a struct's fields, from the text of its layout: those that are whole, if it was cut."""
    listed = text.split(" ", 2)[2]
    if not _is_whole(text):
        listed = f"{listed[: listed.rfind('), (')]})]"
    return {name: (at, kind) for name, at, kind in ast.literal_eval(listed)}


def _field_that_differs(
    cls: Any, ours: dict[str, tuple[int, str]], theirs: dict[str, tuple[int, str]], known: int | None
) -> str:
    """``known``: how many of theirs there are to compare, if they are not all."""
    for name, (_, kind) in itertools.islice(ours.items(), known):
        where = f"field {name} of {cls.__name__}"
        if name not in theirs:
            return f"{where} is not there"
        if theirs[name][1] != kind:
            return f"{where} is {_shown(kind)} here and {_shown(theirs[name][1])} there"
    for name, (_, kind) in theirs.items():
        if name not in ours:
            return f"{cls.__name__} has a field {name} there, {_shown(kind)}"
    return f"the fields of {cls.__name__} are in another order there" if known is None else _ELSEWHERE


def _shown(kind: str) -> str:
    """The text of a field's kind, for people."""
    if kind in SCALARS:
        return SCALARS[kind].wants
    return f"a reference to {kind[3:]}" if kind.startswith("-> ") else kind
