"""Making the segments where others have been, or where it is not allowed."""

import errno
from types import SimpleNamespace

import posix_ipc
import pytest

from gomp.core.shm import layout, segments


def test_what_a_process_of_the_same_number_left_behind_is_not_in_the_way(monkeypatch):
    left = []
    monkeypatch.setattr(posix_ipc, "unlink_shared_memory", left.append)
    with_names = segments.create(layout.ARENA_SIZE)
    try:
        segments.create(layout.ARENA_SIZE).close()
    finally:
        with_names.close()
        monkeypatch.undo()
        for name in left:
            posix_ipc.unlink_shared_memory(name)


def test_a_dev_shm_that_cannot_be_written_to_is_done_without(monkeypatch):
    def refuse(*args, **kwargs):
        raise posix_ipc.PermissionsError("No permission to access this segment")

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    made = segments.create(layout.ARENA_SIZE)
    made.close()
    assert (made.backing, made.why_memfd[:8]) == ("memfd", "/dev/shm")
    assert "No permission" in made.why_memfd


@pytest.mark.parametrize("is_there", [False, True])
def test_without_a_file_system_at_dev_shm_the_heap_is_a_memfd(monkeypatch, is_there):
    def statvfs(path):
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return SimpleNamespace(f_frsize=1 << 20, f_bavail=1 << 20)

    monkeypatch.setattr(segments.os, "statvfs", statvfs)
    monkeypatch.setattr(segments.os.path, "ismount", lambda _: False)
    made = segments.create(layout.ARENA_SIZE)
    made.close()
    assert made.backing == "memfd"
    assert ("No such file" in made.why_memfd) != is_there


@pytest.mark.parametrize(("free", "backing"), [(64, "memfd"), (72, "shm"), (1024, "shm"), (0, "memfd")])
def test_a_heap_that_dev_shm_has_no_room_for_is_a_memfd(monkeypatch, free, backing):
    """What others keep there counts, and so does what the heap's own metadata will need there."""
    found = SimpleNamespace(f_frsize=1 << 20, f_blocks=1 << 20, f_bavail=free)
    monkeypatch.setattr(segments.os, "statvfs", lambda _: found)
    made = segments.create(layout.ARENA_SIZE)
    made.close()
    assert made.backing == backing
