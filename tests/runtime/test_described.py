"""What the type table says of a struct, to processes that have declared it otherwise."""

from __future__ import annotations

import pytest

import gomp
from gomp.runtime import type_table, typekeys
from gomp.runtime.references import key_of, name_hash


def wide(kind: str, at: int, fields: int = 200) -> type:
    """A struct with a description that is too long for the table, of ints but for one field."""
    names = {f"field_{i}": kind if i == at else int for i in range(fields)}
    made = type("Wide", (), {"__annotations__": names, "__module__": __name__, "__qualname__": "Wide"})
    return gomp.struct(made)


@pytest.mark.parametrize(
    ("here", "says"),
    [
        ((float, 30), "field field_30 of Wide is a float here and an int there"),
        ((float, 190), "it, or a struct that it refers to, has other fields there"),
        ((int, 0, 201), "it, or a struct that it refers to, has other fields there"),
        ((int, 0, 20), "Wide has a field field_20 there, an int"),
    ],
)
def test_the_field_that_differs_is_found_in_what_is_left_of_a_long_description(heap, here, says):
    there = wide(int, 0)
    assert type_table.described(there)
    (text,) = type_table.descriptions(name_hash(there))
    assert not text.endswith("]")
    assert typekeys._difference(wide(*here)) == says


@gomp.struct
class Told:
    value: int


def test_a_description_that_was_interrupted_is_made_again(heap, monkeypatch):
    def interrupt(cls):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type_table, "_describe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            type_table.described(Told)
    assert type_table.described(Told) == key_of(Told)
