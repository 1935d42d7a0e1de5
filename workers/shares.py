"""Dividing work among goroutines."""

from __future__ import annotations

from collections.abc import Iterator


def shares(total: int, parts: int) -> Iterator[tuple[int, int]]:
    """``total`` things as ``parts`` ranges [first, end) whose sizes differ by at most one."""
    if parts < 1:
        raise ValueError(f"cannot divide among {parts} goroutines: give at least 1")
    return ((total * i // parts, total * (i + 1) // parts) for i in range(parts))
