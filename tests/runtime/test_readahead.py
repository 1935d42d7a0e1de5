"""A compiler in a full cgroup reads little of LLVM's library at a time."""

from __future__ import annotations

import os
from pathlib import Path

from llvmlite.utils import get_library_name

from gomp.runtime import readahead

MAPS = """\
7f0000000000-7f0000010000 r--p 00000000 08:01 42                         /venv/lib/libllvmlite.so
7f0000010000-7f0000050000 r-xp 00010000 08:01 42                         /venv/lib/libllvmlite.so
7f0000050000-7f0000060000 rw-p 00000000 00:00 0
7f0000060000-7f0000070000 r-xp 00000000 08:01 43                         /a path/libother.so
7ffd00000000-7ffd00010000 rw-p 00000000 00:00 0                          [stack]
"""


def test_the_library_is_found_among_what_is_mapped():
    found = [(end - start, is_code) for start, end, is_code in readahead.mappings(MAPS, "libllvmlite.so")]
    assert found == [(0x10000, False), (0x40000, True)]
    assert list(readahead.mappings(MAPS, "libother.so")) == [(0x7F0000060000, 0x7F0000070000, True)]


def test_its_code_becomes_small_mappings_that_are_read_at_random(tmp_path):
    told = tmp_path / "smaps"
    pid = os.fork()
    if pid == 0:
        try:
            readahead.read_little()
            told.write_bytes(Path("/proc/self/smaps").read_bytes())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    smaps = told.read_text()
    code = [end - start for start, end, is_code in readahead.mappings(_heads(smaps), get_library_name()) if is_code]
    assert len(code) > 100
    assert max(code) <= readahead.PIECE
    assert all(" rr" in flags for flags in _flags_of(smaps, get_library_name()))


def _heads(smaps: str) -> str:
    """The lines of ``maps`` among those of ``smaps``."""
    return "\n".join(line for line in smaps.splitlines() if "-" in line.split()[0])


def _flags_of(smaps: str, library: str) -> list[str]:
    """Those of each of its mappings, as ``VmFlags`` shows them."""
    found, is_ours = [], False
    for line in smaps.splitlines():
        if "-" in line.split()[0]:
            is_ours = line.endswith(f"/{library}")
        elif is_ours and line.startswith("VmFlags:"):
            found.append(line)
    return found
