"""What a cgroup leaves to be committed, from files as the kernel writes them."""

from pathlib import Path

import pytest

from gomp.runtime.cgroup import MemoryCgroup

MIB = 1 << 20


def hierarchy(tmp_path: Path, own: str, files: dict[str, str]) -> MemoryCgroup:
    """The cgroup of a process whose ``/proc/self/cgroup`` is ``own``, below a mount with these files."""
    for name, text in {"proc/cgroup": own, **{f"mount/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return MemoryCgroup.of_this_process(tmp_path / "proc", tmp_path / "mount")


V2 = {"cgroup.controllers": "memory", "a/memory.max": f"{100 * MIB}", "a/memory.current": f"{90 * MIB}"}
V1 = {"memory/a/memory.limit_in_bytes": f"{100 * MIB}", "memory/a/memory.usage_in_bytes": f"{90 * MIB}"}


@pytest.mark.parametrize(
    ("own", "files", "statistics"),
    [
        ("0::/a", V2, "a/memory.stat"),
        ("4:cpu,memory:/a", V1, "memory/a/memory.stat"),
    ],
)
def test_pages_of_files_that_nobody_uses_now_are_room(tmp_path, own, files, statistics):
    counted = "total_inactive_file" if "memory/" in statistics else "inactive_file"
    told = f"anon 1\n{counted} {60 * MIB}\nactive_file {5 * MIB}\n"
    assert hierarchy(tmp_path, own, {**files, statistics: told}).headroom() == 70 * MIB


def test_without_statistics_all_that_is_used_counts(tmp_path):
    assert hierarchy(tmp_path, "0::/a", V2).headroom() == 10 * MIB


def test_the_level_that_leaves_least_decides(tmp_path):
    above = {"memory.max": f"{95 * MIB}", "memory.current": f"{94 * MIB}"}
    assert hierarchy(tmp_path, "0::/a", {**V2, **above}).headroom() == 1 * MIB


def test_without_a_limit_there_is_no_headroom_to_tell(tmp_path):
    assert hierarchy(tmp_path, "0::/a", {**V2, "a/memory.max": "max"}).headroom() is None
