"""Calls and their outcomes, as they cross from one process to another."""

from __future__ import annotations

import functools

import pytest

from gomp.runtime.programs import MAX_NAME, Call


def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("binary_trees", "binary_trees"),
        ("x" * 1000, "x" * MAX_NAME),
        (double, "double"),
        (functools.partial(len, b"x" * (1 << 20)), "partial"),
    ],
    ids=["program", "long", "function", "partial"],
)
def test_a_call_has_a_short_name(target: object, name: str) -> None:
    assert str(Call(target)) == name  # type: ignore[arg-type]
