"""What comes out beside what a tape expects."""

from __future__ import annotations

from typing import Any

from gomp.runtime.replay.tape import to_float


class Difference(Exception):
    """Field ``field`` should be ``expected`` and is ``found``."""

    def __init__(self, field: str, expected: Any, found: Any) -> None:
        super().__init__(f"{field}: expected {expected!r}, found {found!r}")
        self.field = field


def compare(expected: Any, found: Any, field: str = "out") -> None:
    """Raise Difference unless ``found`` has all of ``expected``: integers equal, floats to the last bit."""
    if expected is None and field == "out":
        return  # of which nothing is expected
    if isinstance(expected, dict):
        for name, value in expected.items():
            if not isinstance(found, dict) or name not in found:
                raise Difference(f"{field}.{name}", value, None)
            compare(value, found[name], f"{field}.{name}")
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            raise Difference(field, expected, found)
        for i, value in enumerate(expected):
            compare(value, found[i], f"{field}[{i}]")
    elif not _is_same(expected, found):
        raise Difference(field, expected, found)


def _is_same(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if not isinstance(found, float):
        return bool(expected == found)
    try:
        return repr(to_float(expected)) == repr(float(found))  # equal bits have equal texts
    except (TypeError, ValueError, OverflowError):
        return False


def in_fields_of(expected: Any, found: Any) -> Any:
    """What of ``found`` the tape asks for; all of it if it asks for nothing."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected:
        return {name: in_fields_of(value, found.get(name)) for name, value in expected.items()}
    return found
