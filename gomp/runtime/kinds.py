"""The kinds of numbers that a field or an element may be: their widths, ranges and names.

``int`` is an int64, ``float`` a float64, ``bool`` a byte; ``gomp.int8`` to ``gomp.uint64``, ``gomp.float32`` and ``gomp.float64`` have the width that
they name. For a type checker these are ints and floats.

A value that does not fit is refused, never cut: :meth:`Scalar.checked` says which field, what it holds, and the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np

__all__ = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]

FLOAT32_MAX = float(np.finfo(np.float32).max)
_LONG_INT = 200  # bits: more have more digits than anybody reads, and than int() may print


class Scalar:
    """A kind of number. Its size is its alignment too; ``code`` is its format for memoryview and numpy; floats and bools have no range."""

    __slots__ = ("align", "code", "high", "low", "name", "shift", "size")
    reference_words: tuple[int, ...] = ()

    def __init__(self, name: str, code: str, low: int = 0, high: int = 0) -> None:
        self.name, self.code, self.low, self.high = name, code, low, high
        self.size = self.align = np.dtype(code).itemsize
        self.shift = self.size.bit_length() - 1

    @property
    def is_integer(self) -> bool:
        return self.high > self.low

    def __repr__(self) -> str:
        return self.name if self in _BUILTIN.values() else f"gomp.{self.name}"

    def __reduce__(self) -> Any:
        return _named, (self.name,)

    @property
    def text(self) -> str:
        """What stands for it in the keys of types."""
        return self.name

    @property
    def wants(self) -> str:
        """In messages: what it holds."""
        return f"{'an' if self.name[0] == 'i' else 'a'} {self.name}"

    def checked(self, value: Any, where: Callable[[], str]) -> int | float | bool:
        """``value`` as it is stored. TypeError or OverflowError, which begin with ``where()``."""
        if self.is_integer:
            if not isinstance(value, (int, np.integer, np.bool_)):
                raise wrong_type(where(), self.wants, value, self.how_to_convert)
            if not self.low <= value <= self.high:
                raise OverflowError(
                    f"{where()} is {self.wants}, {self.low} to {self.high}; {brief(int(value))} does not fit: {_wide_enough(self, int(value))}"
                )
            return int(value)
        if self.code == "?":
            if not isinstance(value, (bool, np.bool_)):
                raise wrong_type(where(), self.wants, value, self.how_to_convert)
            return bool(value)
        if not isinstance(value, (float, int, np.floating, np.integer)):
            raise wrong_type(where(), self.wants, value, self.how_to_convert)
        return self._checked_float(value, where)

    def _checked_float(self, value: Any, where: Callable[[], str]) -> float:
        try:
            number = float(value)
        except OverflowError:
            raise OverflowError(f"{where()} is {self.wants}; {brief(value)} does not fit: keep it as text") from None
        # What rounds to the largest float32 still fits; infinities and NaN are float32s too.
        if self.code == "f" and abs(number) > FLOAT32_MAX and np.isfinite(number):
            raise OverflowError(f"{where()} is {self.wants}, up to {FLOAT32_MAX:.6g}; {number} does not fit: use float")
        return number

    @property
    def how_to_convert(self) -> str:
        """In messages: what makes such a number of something else."""
        return f"convert it with {'int' if self.is_integer else 'bool' if self.code == '?' else 'float'}()"


def _wide_enough(kind: Scalar, value: int) -> str:
    """In messages: the narrowest kind that holds an integer, which ``kind`` does not, and if possible all that ``kind`` does."""
    held = [wider for wider in _WIDTHS if wider.is_integer and wider.low <= value <= wider.high]
    if not held:
        return "no integer here is wider than 64 bits, keep it as text"
    wider = min(
        held,
        key=lambda wider: (not wider.low <= kind.low <= kind.high <= wider.high, wider.size < kind.size, wider.size),
    )
    return f"{wider!r} holds it"


def wrong_type(where: str, wants: str, value: object, fix: str) -> TypeError:
    got = "None" if value is None else f"{type(value).__name__} {brief(value)}"
    return TypeError(f"{where} holds {wants}, not {got}: {'give a value' if value is None else fix}")


def brief(value: object) -> str:
    """In messages: a value as far as one likes to read it."""
    if isinstance(value, int) and value.bit_length() > _LONG_INT:
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _integer(name: str, code: str, bits: int, is_signed: bool) -> Scalar:
    return Scalar(name, code, -(1 << (bits - 1)) if is_signed else 0, (1 << (bits - is_signed)) - 1)


INT = _integer("int", "q", 64, True)
FLOAT = Scalar("float", "d")
BOOL = Scalar("bool", "?")
_WIDTHS = [
    *(_integer(f"int{bits}", code, bits, True) for bits, code in ((8, "b"), (16, "h"), (32, "i"))),
    INT,  # gomp.int64
    *(_integer(f"uint{bits}", code, bits, False) for bits, code in ((8, "B"), (16, "H"), (32, "I"), (64, "Q"))),
    Scalar("float32", "f"),
]
SCALARS = {kind.name: kind for kind in (FLOAT, BOOL, *_WIDTHS)}
_BUILTIN: dict[object, Scalar] = {int: INT, float: FLOAT, bool: BOOL}


def scalar(annotation: object) -> Scalar | None:
    """The kind of number that an annotation names; None if it is something else."""
    if isinstance(annotation, Scalar):
        return annotation
    return _BUILTIN.get(annotation) if isinstance(annotation, type) else None


def _named(name: str) -> Scalar:
    return SCALARS[name]


if TYPE_CHECKING:
    int8: TypeAlias = Annotated[int, "int8"]
    int16: TypeAlias = Annotated[int, "int16"]
    int32: TypeAlias = Annotated[int, "int32"]
    int64: TypeAlias = Annotated[int, "int64"]
    uint8: TypeAlias = Annotated[int, "uint8"]
    uint16: TypeAlias = Annotated[int, "uint16"]
    uint32: TypeAlias = Annotated[int, "uint32"]
    uint64: TypeAlias = Annotated[int, "uint64"]
    float32: TypeAlias = Annotated[float, "float32"]
    float64: TypeAlias = Annotated[float, "float64"]
else:
    float64 = FLOAT
    int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32 = _WIDTHS
