"""A build of the kernels in which a process can be killed before any one of its writes to shared memory: ``GOMP_KILL_SITES=DIRECTORY``.

The writes are those of the optimized code, as the machine does them: each store, each atomic and each fill or copy in it that does not go to the
function's own stack or result is a *site*, with a number. Before it the code calls ``gomp_kill_site(number)``, which kills its process if that is
the one whose id is in the table, and no process of its kind has been killed at this site yet.

In the directory lie the kernels and programs of this build, ``sites.txt``, a line for each site by number, and ``table``, which every process maps:
the id of the process to be killed (which is 0 again when it is), its kind, the number of the site it was killed at, and a byte for each site, with a
bit for each kind.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import cpu_target

DIRECTORY = os.environ.get("GOMP_KILL_SITES")

MOST = 1 << 20  # sites
TABLE_BYTES = 4096 + MOST
VICTIM, KIND, LAST, FIRST_SITE = 0, 4, 8, 4096  # offsets in the table
OF_A_P, OF_THE_COORDINATOR, OF_A_GUEST = 1, 2, 4  # kinds; a guest is attached

_WRITES = re.compile(
    r"^  (?:%\S+ = )?(?:tail call |call )?(?:store|atomicrmw|cmpxchg|void @llvm\.mem(?:cpy|move|set)\.)"
)
_POINTER = re.compile(r"ptr (?:\w+(?:\(\d+\))? |align \d+ )*(%[\w.\-$\"]+|@[\w.\-$\"]+)")
_OWN = re.compile(r"^  (%\S+) = (?:alloca .*|getelementptr [^%]*ptr (%[\w.\-$\"]+).*)")
_CALL = "  call void @gomp_kill_site(i64 {})"
_DECLARATION = "declare void @gomp_kill_site(i64)"
_NOT_OURS = re.compile(r"^define .*@\"?(?:cfunc\.|_ZN7cpython|_ZN5numba|(?i:nrt_)|numba_)")

_FUNCTION = """
declare i32 @getpid()
declare i32 @kill(i32, i32)

define void @gomp_kill_site(i64 %n) {{
  %victim = inttoptr i64 {victim} to ptr
  %pid = load atomic i32, ptr %victim monotonic, align 4
  %idle = icmp eq i32 %pid, 0
  br i1 %idle, label %on, label %armed

armed:
  %at = add i64 %n, {first}
  %seen = inttoptr i64 %at to ptr
  %was = load atomic i8, ptr %seen monotonic, align 1
  %kinds = inttoptr i64 {kind} to ptr
  %kind = load atomic i8, ptr %kinds monotonic, align 1
  %both = and i8 %was, %kind
  %fresh = icmp eq i8 %both, 0
  br i1 %fresh, label %whose, label %on

whose:
  %mine = call i32 @getpid()
  %ours = icmp eq i32 %mine, %pid
  br i1 %ours, label %die, label %on

die:
  %is = or i8 %was, %kind
  store atomic i8 %is, ptr %seen monotonic, align 1
  %last = inttoptr i64 {last} to ptr
  store atomic i64 %n, ptr %last monotonic, align 8
  store atomic i32 0, ptr %victim release, align 4
  %done = call i32 @kill(i32 %mine, i32 9)
  br label %on

on:
  ret void
}}
"""


class Table:
    """The file that all processes of this build map."""

    def __init__(self, directory: str) -> None:
        fd = os.open(Path(directory, "table"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, TABLE_BYTES)
            self.bytes = mmap.mmap(fd, TABLE_BYTES)
        finally:
            os.close(fd)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        self.victim = ctypes.c_int32.from_buffer(self.bytes, VICTIM)
        self.kind = ctypes.c_int8.from_buffer(self.bytes, KIND)
        self.last = ctypes.c_int64.from_buffer(self.bytes, LAST)

    def arm(self, pid: int, kind: int) -> None:
        """Have that process be killed at the next site at which none of its kind was."""
        self.kind.value = kind
        self.victim.value = pid

    def visited(self, kind: int) -> list[int]:
        """The sites at which one of this kind has been killed."""
        return [n for n, byte in enumerate(self.bytes[FIRST_SITE:]) if byte & kind]


class Library(JITCodeLibrary):  # type: ignore[misc]
    """Code with sites. What is to be inlined has none: it gets them in the function that it becomes part of."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and not any(b"alwaysinline" in a for a in function.attributes):
                function.add_function_attribute("noinline")  # else each wrapper would have sites of its own
        super()._optimize_final_module()
        text = _with_sites(str(self._final_module))
        if text is not None:
            name = self._final_module.name
            self._final_module = llvm.parse_assembly(text)
            self._final_module.name = name


def install() -> None:
    """Have Numba build code with sites from now on, in this process and those that it forks."""
    table = Table(str(DIRECTORY))
    module = llvm.parse_assembly(
        _FUNCTION.format(
            victim=table.address + VICTIM,
            kind=table.address + KIND,
            last=table.address + LAST,
            first=table.address + FIRST_SITE,
        )
    )
    codegen: Any = cpu_target.target_context.codegen()
    codegen._library_class = Library
    engine = llvm.create_mcjit_compiler(module, codegen._tm)
    engine.finalize_object()
    llvm.add_symbol("gomp_kill_site", engine.get_function_address("gomp_kill_site"))
    _kept.extend((engine, table))


_kept: list[object] = []  # as long as there is code that calls it


def _with_sites(text: str) -> str | None:
    """The module with a call before each write that has none yet; None if there is no such write."""
    lines = text.splitlines()
    sites = list(_sites(lines))
    if not sites:
        return None
    first = _number([f"{function} {lines[at].strip()}" for at, function in sites])
    for number, (at, _) in reversed(list(enumerate(sites, first))):
        lines.insert(at, _CALL.format(number))
    if not any(line.startswith(_DECLARATION) for line in lines):
        lines.append(_DECLARATION)
    return "\n".join(lines)


def _sites(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines that are writes of shared memory, each with its function's name."""
    inlined = {m[1] for line in lines if (m := re.match(r"attributes (#\d+) = {.*\balwaysinline\b", line))}
    function, own = "", set[str]()
    for at, line in enumerate(lines):
        if line.startswith("define "):
            skipped = _NOT_OURS.match(line) or inlined & set(re.findall(r"#\d+", line))
            function = "" if skipped else str(re.findall(r'@("[^"]*"|[\w.$]+)\(', line)[0])
            own = {"%retptr", "%excinfo"}
        elif function:
            if (made := _OWN.match(line)) and (made[2] is None or made[2] in own):
                own.add(made[1])
            elif _WRITES.match(line) and "@gomp_kill_site" not in lines[at - 1] and _destination(line) not in own:
                yield at, function


def _destination(write: str) -> str:
    """The pointer that is written through: the last of a store, the first of all others; "" if it is a constant."""
    pointers = _POINTER.findall(write)
    return (pointers[-1] if " store " in write else pointers[0]) if pointers else ""


def _number(sites: list[str]) -> int:
    """Give these sites the next numbers; the first of them."""
    with open(Path(str(DIRECTORY), "sites.txt"), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        first = sum(1 for _ in file)
        if first + len(sites) > MOST:
            raise OverflowError(f"{DIRECTORY}: more than {MOST} sites: remove it, and build anew")
        file.writelines(f"{site}\n" for site in sites)
        return first
