"""Keywords of calls inside of ``try``, which Numba 0.68 forgets under Python 3.11 and 3.12: it takes such arguments by position.

There the names stand in an instruction of their own before the call's, and Numba, for which each instruction in a ``try`` may end a block, does not
carry them over to the next. So each call gets the names that stand before it in the bytecode. A function within a function is translated by Numba,
wherever it is called: it is refused if it has such a call.
"""

from __future__ import annotations

import dis
import types as python_types
from collections.abc import Iterator
from typing import Any

from numba.core import errors, ir, untyped_passes
from numba.core.compiler_machinery import register_pass
from numba.core.interpreter import Interpreter

from gomp.runtime.reftypes import MARK

_LOST = "in a function within a function compiled code knows no keyword arguments inside of try: give them by position, or move the function out"


class _Interpreter(Interpreter):  # type: ignore[misc]
    def interpret(self, bytecode: Any) -> Any:
        self._names = dict(_names_before_calls(bytecode))
        return super().interpret(bytecode)

    def op_CALL(self, inst: Any, func: Any, args: Any, kw_names: int | None, res: Any) -> None:
        super().op_CALL(inst, func, args, self._names.get(inst.offset, kw_names), res)


def _names_before_calls(bytecode: Any) -> Iterator[tuple[int, int]]:
    """Of each call with keywords: its offset, and the number of the constant with their names."""
    names = None
    for inst in bytecode:
        if inst.opname == "KW_NAMES":
            names = inst.arg
        elif inst.opname == "CALL" and names is not None:
            yield inst.offset, names
            names = None


@register_pass(mutates_CFG=True, analysis_only=False)
class TranslateByteCode(untyped_passes.TranslateByteCode):  # type: ignore[misc]
    """Numba's first step, with the keywords that it loses."""

    _name = "gomp_translate_bytecode"

    def run_pass(self, state: Any) -> bool:
        _refuse_lost(state.func_id.code)
        state.func_ir = _Interpreter(state.func_id).interpret(state.bc)
        return True


def _refuse_lost(code: python_types.CodeType) -> None:
    for inner in code.co_consts:
        if isinstance(inner, python_types.CodeType):
            line = _line_of_lost(inner)
            if line is not None:
                raise errors.TypingError(MARK + _LOST, loc=ir.Loc(inner.co_filename, line))
            _refuse_lost(inner)


def _line_of_lost(code: python_types.CodeType) -> int | None:
    """Where a function has a call with keywords inside of ``try``."""
    bytecode: Any = dis.Bytecode(code)
    for inst in bytecode:
        if inst.opname == "KW_NAMES" and any(e.start <= inst.offset < e.end for e in bytecode.exception_entries):
            return inst.positions.lineno if inst.positions else code.co_firstlineno
    return None
