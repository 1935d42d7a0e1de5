"""What x86 orders by itself and aarch64 does not, read from the code that LLVM makes for aarch64."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import pytest
from numba import njit, types

from gomp.core import COMPILED, load_kernels
from gomp.core.mutator.boundary import set_length
from gomp.core.mutator.malloc import new_small
from gomp.core.mutator.mapcalls import new_map
from gomp.core.sched.redo import commit, plan
from gomp.core.sched.status import enter, leave
from gomp.core.shm.atomics import fence_release, store_relaxed, zero_range

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def publish_new(root: int) -> None:
    addr = new_small(4, 16, 2, 3, 16, 0)
    if addr > 0:
        store_relaxed(root, addr)


def publish_array(root: int, addr: int, n: int) -> None:
    set_length(addr, n)
    store_relaxed(root, addr)


def publish_fenced(root: int, addr: int) -> None:
    zero_range(addr, 16)
    fence_release()
    store_relaxed(root, addr)


def publish_unfenced(root: int, addr: int) -> None:
    """Mutant: nothing orders the object's zeroing before the store that publishes it."""
    zero_range(addr, 16)
    store_relaxed(root, addr)


def assembly(function: Callable[..., Any], nargs: int) -> list[str]:
    """The instructions of the function as compiled for aarch64."""
    load_kernels()  # which the function calls by symbol
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    compiled = njit(error_model="numpy")(function)
    signature = (types.int64,) * nargs
    compiled.compile(signature)
    text = re.sub(r"^target (datalayout|triple) = .*$", "", compiled.inspect_llvm(signature), flags=re.MULTILINE)
    module = llvm.parse_assembly(text)
    triple = "aarch64-unknown-linux-gnu"
    module.triple = triple
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=3)
    lines = [" ".join(line.split()) for line in machine.emit_assembly(module).splitlines()]
    start = lines.index(next(line for line in lines if re.match(rf"_ZN.*{function.__name__}.*:", line)))
    end = next(i for i in range(start, len(lines)) if lines[i].startswith(".Lfunc_end"))
    return [line for line in lines[start:end] if not line.startswith((".", "_", "/"))]


def positions(instructions: list[str], pattern: str) -> list[int]:
    return [i for i, line in enumerate(instructions) if re.match(pattern, line)]


ZEROING = r"(stp xzr, xzr|str xzr|str q|stp q)"


def is_published_in_order(instructions: list[str]) -> bool:
    """Zeroing, then a barrier, then the store that publishes."""
    barriers = positions(instructions, r"dmb ish")
    if not barriers:
        return False
    zeroing = positions(instructions, ZEROING)
    stores = positions(instructions, r"str x(?!zr)")
    return bool(zeroing) and min(zeroing) < barriers[0] and any(i > barriers[-1] for i in stores)


if COMPILED:

    def test_an_object_is_zeroed_before_it_is_published():
        assert is_published_in_order(assembly(publish_fenced, 2))

    def test_new_zeroes_before_it_publishes():
        instructions = assembly(publish_new, 1)
        assert is_published_in_order(instructions)
        (zeroing,) = [i for i in positions(instructions, ZEROING) if instructions[i].startswith("stp xzr, xzr")]
        assert zeroing < positions(instructions, r"dmb ish")[0]

    def test_an_array_has_its_length_before_it_is_published():
        instructions = assembly(publish_array, 3)
        length, published = positions(instructions, r"str x(?!zr)")
        assert length < positions(instructions, r"dmb ish")[0] < published

    def test_a_map_has_its_seed_before_it_is_published():
        instructions = assembly(new_map.py_func, 0)
        (seed,) = positions(instructions, r"mul x")
        stored, returned = [i for i in positions(instructions, r"str x(?!zr)") if i > seed]
        assert any(stored < barrier < returned for barrier in positions(instructions, r"dmb ish"))

    def test_publishing_without_the_fence_is_caught():
        assert not is_published_in_order(assembly(publish_unfenced, 2))

    def test_entry_and_leaving_are_store_then_load():
        """A release store and a load-acquire keep their order on aarch64 (LDAR, not LDAPR)."""

        def enter_and_leave() -> int:
            code = enter()
            leave()
            return code

        instructions = assembly(enter_and_leave, 0)
        assert positions(instructions, r"(stlxr|casal)")
        stores, loads = positions(instructions, r"stlr "), positions(instructions, r"ldar ")
        assert stores
        assert loads
        assert any(load > stores[-1] for load in loads)
        assert positions(instructions, "ldapr") == []

    def test_a_redo_record_is_written_by_release_stores_only():
        def commit_two(a: int, b: int) -> None:
            plan(0, a, 1)
            plan(1, b, 2)
            commit(2)

        instructions = assembly(commit_two, 2)
        assert len(positions(instructions, r"stlr ")) >= 4 + 1 + 1 + 1
