"""What cgroups leave of memory and processors, and pressure, from files as the kernel writes them."""

from pathlib import Path

import pytest

from gomp.cgroup import CpuCgroup, MemoryCgroup, memory_level
from gomp.config import default_procs
from gomp.pressure import Pressure, is_system_short, read_pressure

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
    total = "total_" if "memory/" in statistics else ""
    told = f"anon 1\n{total}inactive_file {60 * MIB}\n{total}active_file {5 * MIB}\n"
    cgroup = hierarchy(tmp_path, own, {**files, statistics: told})
    assert cgroup.headroom() == 70 * MIB
    assert cgroup.headroom(at_worst=True) == 75 * MIB


def test_without_statistics_all_that_is_used_counts(tmp_path):
    assert hierarchy(tmp_path, "0::/a", V2).headroom() == 10 * MIB


def test_the_level_that_leaves_least_decides(tmp_path):
    above = {"memory.max": f"{95 * MIB}", "memory.current": f"{94 * MIB}"}
    assert hierarchy(tmp_path, "0::/a", {**V2, **above}).headroom() == 1 * MIB


def test_without_a_limit_there_is_no_headroom_to_tell(tmp_path):
    assert hierarchy(tmp_path, "0::/a", {**V2, "a/memory.max": "max"}).headroom() is None


# --- which limit, and what is taken of it -----------------------------------------------------------------------------

HYBRID = "0::/\n9:name=systemd:/\n4:memory:/a\n"


def test_the_strictest_limit_on_the_way_up_counts(tmp_path):
    files = {
        "a/b/memory.max": "max",
        "a/memory.max": f"{100 * MIB}",
        "memory.max": f"{300 * MIB}",
        "cgroup.controllers": "",
    }
    level = hierarchy(tmp_path, "0::/a/b", files).strictest()
    assert (level.directory.name, level.limit()) == ("a", 100 * MIB)


def test_a_limit_that_is_changed_is_read_anew(tmp_path):
    memory = hierarchy(tmp_path, "0::/a", V2)
    (tmp_path / "mount/a/memory.max").write_text(f"{70 * MIB}\n")
    assert memory.strictest().limit() == 70 * MIB


def test_in_a_hybrid_hierarchy_memory_is_where_its_controller_is(tmp_path):
    files = {**V1, "cgroup.controllers": "", "memory.max": f"{MIB}"}
    assert hierarchy(tmp_path, HYBRID, files).strictest().limit() == 100 * MIB


def test_in_a_hybrid_hierarchy_memory_may_be_in_the_directory_of_v2(tmp_path):
    files = {f"unified/{name}": text for name, text in V2.items()}
    assert hierarchy(tmp_path, "9:name=systemd:/\n0::/a\n", files).strictest().limit() == 100 * MIB


@pytest.mark.parametrize("unlimited", [f"{(1 << 63) - 4096}", f"{1 << 63}", "max", "", "what?"])
def test_what_is_no_limit_is_none(tmp_path, unlimited):
    assert hierarchy(tmp_path, "4:memory:/a", {**V1, "memory/a/memory.limit_in_bytes": unlimited}).strictest() is None


@pytest.mark.parametrize(
    ("text", "is_told"),
    [("what?", True), ("", True), ("-5", True), ("max", False), (f"{1 << 63}", False), ("1000", False)],
)
def test_a_limit_that_is_not_understood_is_none_and_told(tmp_path, text, is_told):
    memory = hierarchy(tmp_path, "0::/a", {**V2, "a/memory.max": f"{text}\n"})
    assert [("is not understood" in problem, repr(text) in problem) for problem in memory.problems()] == [
        (True, True)
    ] * is_told
    assert (memory.strictest() is None) == (text != "1000")


def test_what_sets_no_limit_in_v1_is_not_told_as_one(tmp_path):
    memory = hierarchy(tmp_path, "4:memory:/a", {**V1, "memory/a/memory.limit_in_bytes": "-1\n"})
    assert (memory.problems(), memory.strictest()) == ([], None)


def test_a_limit_that_cannot_be_read_is_told(tmp_path):
    memory = hierarchy(tmp_path, "0::/a", V2)
    (tmp_path / "mount/a/memory.max").unlink()
    (tmp_path / "mount/a/memory.max").mkdir()
    assert "memory.max cannot be read: Is a directory" in memory.problems()[0]


def test_a_container_sees_its_own_cgroup_as_the_mount(tmp_path):
    files = {"cgroup.controllers": "", "memory.max": f"{100 * MIB}"}
    assert hierarchy(tmp_path, "0::/machine/container", files).strictest().limit() == 100 * MIB


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/a", {**V2, "a/memory.stat": f"anon {30 * MIB}\nfile {MIB}\nkernel {2 * MIB}\nshmem {60 * MIB}\n"}),
        (
            "4:memory:/a",
            {
                **V1,
                "memory/a/memory.stat": f"rss 1\ntotal_rss {30 * MIB}\ntotal_shmem {60 * MIB}\n",
                "memory/a/memory.kmem.usage_in_bytes": f"{2 * MIB}",
            },
        ),
    ],
)
def test_what_processes_have_for_themselves_is_their_own_pages_and_the_kernels(tmp_path, own, files):
    assert hierarchy(tmp_path, own, files).strictest().anonymous() == 32 * MIB


@pytest.mark.parametrize(
    ("own", "files", "events"),
    [
        ("0::/a", {**V2, "a/memory.events": "low 0\nhigh 3\nmax 5\noom 1\noom_kill 1\n"}, {"max": 5, "oom_kill": 1}),
        (
            "4:memory:/a",
            {
                **V1,
                "memory/a/memory.failcnt": "5\n",
                "memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            },
            {"max": 5, "oom_kill": 1},
        ),
    ],
)
def test_how_often_the_limit_was_met_has_the_same_names_in_both_versions(tmp_path, own, files, events):
    assert events.items() <= hierarchy(tmp_path, own, files).own().events().items()


@pytest.mark.parametrize(
    ("swap_files", "events"),
    [
        ({"memory.memsw.limit_in_bytes": f"{512 * MIB}\n"}, {"max": 0, "oom_kill": 1}),
        ({"memory.memsw.limit_in_bytes": f"{256 * MIB}\n"}, {"oom_kill": 1}),
        ({"memory.memsw.limit_in_bytes": f"{256 * MIB}\n", "memory.memsw.failcnt": "7\n"}, {"max": 7, "oom_kill": 1}),
    ],
)
def test_a_limit_without_swap_in_v1_is_not_said_to_be_met_never(tmp_path, swap_files, events):
    files = {"memory.limit_in_bytes": f"{256 * MIB}\n", "memory.failcnt": "0\n", "memory.oom_control": "oom_kill 1\n"}
    for name, text in (files | swap_files).items():
        (tmp_path / name).write_text(text)
    assert memory_level(tmp_path, is_v2=False).events() == events


def test_no_cgroup_has_no_limits_and_no_levels(tmp_path):
    memory = MemoryCgroup.of_this_process(tmp_path / "nowhere", tmp_path)
    assert (memory.headroom(), memory.strictest(), memory.own()) == (None, None, None)


# --- processors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/a", {"cgroup.controllers": "", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"cgroup.controllers": "", "a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2.5),
        ("0::/a", {"cgroup.controllers": "", "a/cpu.max": "max 100000"}, None),
        ("3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4.0),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("3:cpu:/a", {}, None),
    ],
)
def test_the_quota_of_processor_time(tmp_path, own, files, quota):
    hierarchy(tmp_path, own, files)
    assert CpuCgroup.of_this_process(tmp_path / "proc", tmp_path / "mount").quota() == quota


@pytest.mark.parametrize(("quota", "procs"), [(None, 8), (0.5, 2), (1.0, 2), (2.0, 2), (2.01, 3), (7.5, 8), (16.0, 8)])
def test_as_many_ps_as_the_quota_rounded_up_but_two_at_least(monkeypatch, quota, procs):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(CpuCgroup, "quota", lambda self: quota)
    assert default_procs() == procs


# --- pressure ---------------------------------------------------------------------------------------------------------

PSI = "some avg10=1.50 avg60=0.10 avg300=0.00 total=2500000\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1000000\n"


def test_pressure_is_the_cgroups_where_it_tells_and_the_systems_otherwise(tmp_path):
    system, own = tmp_path / "system", tmp_path / "memory.pressure"
    system.write_text(PSI)
    assert read_pressure(tmp_path, system) == {"some": Pressure(1.5, 2.5), "full": Pressure(0.5, 1.0)}
    own.write_text("some avg10=9.00 avg60=0.10 avg300=0.00 total=0\n")
    assert read_pressure(tmp_path, system) == {"some": Pressure(9.0, 0.0)}
    own.unlink()
    own.mkdir()  # it is there, and cannot be read
    assert read_pressure(tmp_path, system) == {}, "the system's total is another counter"


@pytest.mark.parametrize("text", [None, "", "nonsense", "some avg10=x total=1"])
def test_a_kernel_that_does_not_tell_has_no_pressure(tmp_path, text):
    if text is not None:
        (tmp_path / "system").write_text(text)
    assert read_pressure(None, tmp_path / "system") == {}


def test_the_system_is_short_of_memory_below_its_share_or_if_it_does_not_tell(tmp_path):
    meminfo = tmp_path / "meminfo"
    for available, short in ((2000, False), (1000, False), (999, True)):
        meminfo.write_text(
            f"MemTotal:        8000 kB\nMemFree:         500 kB\nMemAvailable:    {available} kB\nHugePages_Total:       0\n"
        )
        assert is_system_short(8, meminfo) == short
    assert is_system_short(8, tmp_path / "nothing")
