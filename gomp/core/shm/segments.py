"""The two shared segments: made, mapped at their fixed addresses, handed to other processes by descriptor.

A segment is a sparse file in ``/dev/shm`` (posix_ipc) whose name is unlinked as soon as it is open, so a kill leaves nothing behind;
where there is no ``/dev/shm`` to write to, or it has less free than the heap may take, a ``memfd``, which only the cgroup limits.
Other processes get the descriptor: by fork, or over the runtime's socket. Every mapping is ``MADV_DONTFORK`` outside the coordinator: a
forked child of a program must not write the heap as the P that its parent is.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import posix_ipc

from gomp.core.shm import layout
from gomp.core.shm.atomics import allow_range
from gomp.core.shm.libc import libc
from gomp.core.shm.records import RT_XSHUTDOWN, RT_XSTOP, RUNTIME, runtime_dtype, view

_MAP_FIXED_NOREPLACE = 0x100000
_MAP_NORESERVE = 0x4000
_MAP_FIXED = 0x10
MADV_DONTFORK = 10
_METADATA = 8  # the heap by its metadata, at the least
_FAILED = ctypes.c_void_p(-1).value
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_keeping_lock = ctypes.PyDLL(None)
_keeping_lock.mremap.restype = ctypes.c_void_p
_keeping_lock.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
_is_covered = False


class _Unusable(Exception):
    """What is wrong with /dev/shm."""


@dataclass(frozen=True)
class Segments:
    """Open descriptors of a runtime's two segments. ``backing`` is "shm" or "memfd"; ``heap_bytes`` the heap's maximum.

    ``why_memfd`` says, to who has made them, what is wrong with ``/dev/shm``.
    """

    heap_fd: int
    meta_fd: int
    heap_bytes: int
    backing: str
    why_memfd: str = ""

    def close(self) -> None:
        for fd in (self.heap_fd, self.meta_fd):
            os.close(fd)


def create(heap_bytes: int) -> Segments:
    """Make the segments of a new runtime; ``heap_bytes`` is a multiple of the arena size."""
    if heap_bytes % layout.ARENA_SIZE or not 0 < heap_bytes <= layout.HEAP_MAX:
        raise ValueError(f"heap of {heap_bytes} bytes: not a multiple of {layout.ARENA_SIZE} up to {layout.HEAP_MAX}")
    try:
        if _shm_free() < heap_bytes + heap_bytes // _METADATA:
            return _create("memfd", heap_bytes, f"/dev/shm has less free than max_heap={heap_bytes}")
        return _create("shm", heap_bytes)
    except _Unusable as error:
        return _create("memfd", heap_bytes, str(error))


def _create(backing: str, heap_bytes: int, why_memfd: str = "") -> Segments:
    heap_fd = _open(backing, "heap", heap_bytes)
    try:
        meta_fd = _open(backing, "meta", layout.META_SIZE)
    except BaseException:
        os.close(heap_fd)
        raise
    return Segments(heap_fd, meta_fd, heap_bytes, backing, why_memfd)


def commit_fixed(segments: Segments, p_indices: Iterable[int]) -> None:
    """Make the records that exist from the start safe to touch: the runtime's, the tables', those of the given Ps. The segments are mapped."""
    os.posix_fallocate(segments.meta_fd, 0, layout.PS_BASE - layout.META_BASE)
    n = 0
    for i in p_indices:
        os.posix_fallocate(segments.meta_fd, layout.PS_BASE - layout.META_BASE + i * layout.P_STRIDE, layout.P_BYTES)
        n += 1
    view(runtime_dtype, RUNTIME)[0].committed_ps = n


def map_segments(segments: Segments, *, inherit: bool = False) -> None:
    """Map both segments here. With ``inherit`` forked children keep them: for the coordinator, which forks the Ps."""
    if _is_covered:
        unmap()
    _map(layout.HEAP_BASE, segments.heap_bytes, segments.heap_fd, 0, inherit)
    _map(layout.META_BASE, layout.META_SIZE, segments.meta_fd, 0, inherit)


def map_metadata(meta_fd: int) -> None:
    """Map the metadata of a runtime here, for a process that only looks at it and has no runtime of its own."""
    addr, flags = layout.META_BASE, mmap.MAP_SHARED | _MAP_NORESERVE | _MAP_FIXED_NOREPLACE
    if libc.mmap(addr, layout.META_SIZE, mmap.PROT_READ, flags, meta_fd, 0) != addr:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot map {layout.META_SIZE} bytes at {addr:#x}: {os.strerror(number)}")
    allow_range(addr, layout.META_SIZE)


def map_self(segments: Segments, p_idx: int) -> None:
    """Make SELF_BASE the record of P ``p_idx``. A second call moves it."""
    offset = layout.PS_BASE - layout.META_BASE + p_idx * layout.P_STRIDE
    _map(layout.SELF_BASE, layout.P_STRIDE, segments.meta_fd, offset, False, _MAP_FIXED)


def cover(segments: Segments) -> None:
    """Undo the mappings of this process, and have memory of its own in their place, in which a runtime has ended. Once more, if it was interrupted.

    So what was about to look at them, and was interrupted by what ended the runtime, finds that and no fault. It is zeros, which cost nothing. The
    first step puts metadata there in which the world is stopped for good: no kernel of another thread enters any more while the others are done.
    """
    global _is_covered
    _is_covered = True
    ended = _map_anew(layout.META_SIZE)
    if ended != _FAILED:
        for word in (RT_XSHUTDOWN, RT_XSTOP):
            ctypes.c_int64.from_address(ended + word - layout.META_BASE).value = 1
    is_done = (
        _move(ended, layout.META_BASE, layout.META_SIZE)
        and _move(_map_anew(layout.P_STRIDE), layout.SELF_BASE, layout.P_STRIDE)
        and _move(_map_anew(segments.heap_bytes), layout.HEAP_BASE, segments.heap_bytes)
    )
    if not is_done:
        unmap()


def _map_anew(size: int) -> int:
    """The address of private memory, where there is room for it, or _FAILED."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return int(libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0))


def _move(addr: int, to: int, size: int) -> bool:
    """In one step, in which the interpreter's lock is kept: no other thread is in the middle of a kernel."""
    return addr != _FAILED and bool(_keeping_lock.mremap(addr, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, to) == to)


def unmap() -> None:
    """Undo the mappings of this process. Nothing may use the heap afterwards."""
    global _is_covered
    _is_covered = False
    for base, size in (
        (layout.HEAP_BASE, layout.HEAP_MAX),
        (layout.META_BASE, layout.META_SIZE),
        (layout.SELF_BASE, layout.P_STRIDE),
    ):
        libc.munmap(base, size)


def protect_from_fork() -> None:
    """Children forked from now on do not get the segments: what a P does once it runs."""
    for base, size in ((layout.HEAP_BASE, layout.HEAP_MAX), (layout.META_BASE, layout.META_SIZE)):
        libc.madvise(base, size, MADV_DONTFORK)


def _open(backing: str, purpose: str, size: int) -> int:
    if backing == "memfd":
        fd = os.memfd_create(f"gomp-{purpose}", os.MFD_CLOEXEC)
    else:
        fd = _open_unlinked(purpose)
    os.ftruncate(fd, size)
    return fd


def _open_unlinked(purpose: str) -> int:
    # Random: a process number comes again, in a container that shares /dev/shm or after a kill between these two calls.
    name = f"/gomp-{purpose}-{secrets.token_hex(8)}"
    try:
        fd: int = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600).fd
        posix_ipc.unlink_shared_memory(name)
    except (posix_ipc.Error, OSError) as error:  # which of them, depends on the errno
        raise _Unusable(f"/dev/shm cannot be written to: {getattr(error, 'strerror', None) or error}") from None
    return fd


def _shm_free() -> int:
    """Bytes that could be committed there now. Raises _Unusable: a directory of that name on a disk would do, but slowly."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError as error:
        raise _Unusable(f"/dev/shm cannot be used: {error.strerror}") from None
    if not os.path.ismount("/dev/shm"):
        raise _Unusable("nothing is mounted at /dev/shm")
    return stat.f_frsize * stat.f_bavail


def _map(addr: int, size: int, fd: int, offset: int, inherit: bool, fixed: int = _MAP_FIXED_NOREPLACE) -> None:
    flags = mmap.MAP_SHARED | _MAP_NORESERVE | fixed
    got = libc.mmap(addr, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)
    if got != addr:
        number = ctypes.get_errno() if got in (None, _FAILED) else errno.EEXIST
        raise OSError(number, f"cannot map {size} bytes at {addr:#x}: {os.strerror(number)}")
    if not inherit:
        libc.madvise(addr, size, MADV_DONTFORK)
    allow_range(addr, size)


def huge_page_bytes() -> int:
    """The size of the huge pages that the system gives shared memory by itself; 0 if it does not."""
    try:
        enabled = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").read_text()
        size = int(Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0
    return size if any(f"[{word}]" in enabled for word in ("always", "within_size", "force")) else 0
