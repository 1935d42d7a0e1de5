"""``GODEBUG=madvdontneed=0``: what is returned stays in memory, is used again without a fault, and goes when memory is short."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import time

import pytest
from real_cgroup import make_cgroup

import gomp
from gomp.core import COMPILED
from gomp.runtime.lazyreturn import PERIOD_S

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)

MIB = 1 << 20
PEAK = 128 * MIB


@pytest.fixture
def rt(monkeypatch):
    monkeypatch.setenv("GODEBUG", "madvdontneed=0")
    with gomp.Runtime(procs=1, gogc="off", max_heap="1GiB") as runtime:
        yield runtime


@gomp.compiled
def fill(words: int) -> int:
    array = gomp.array(int, words)
    for at in range(0, words, 512):
        array[at] = at + 1
    return array[words - 512]


@gomp.compiled
def look_and_fill(words: int) -> int:
    array = gomp.array(int, words)
    wrong = 0
    for at in range(0, words, 512):
        if array[at] != 0:
            wrong += 1
        array[at] = at + 1
    return wrong


def faults_of_look_and_fill(words: int) -> tuple[int, int]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    wrong = look_and_fill(words)
    return wrong, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_it_counts_as_returned_at_once_stays_resident_and_is_used_again_zeroed_and_without_a_fault(rt):
    rt.run(fill, PEAK // 8)
    committed = rt.resident().heap
    released = gomp.debug.free_os_memory()
    stats = rt.stats()
    assert released >= PEAK
    assert stats.heap_idle >= PEAK
    assert stats.mapped < PEAK
    assert rt.resident().heap == committed
    wrong, faults = rt.run(faults_of_look_and_fill, PEAK // 8)
    assert (wrong, faults < PEAK // 4096 / 16) == (0, True), faults
    assert rt.stats().mapped > PEAK
    rt.verify(3)


def test_free_os_memory_returns_it_now_if_it_is_told_to(rt):
    rt.run(fill, PEAK // 8)
    gomp.debug.free_os_memory(now=True)
    assert rt.resident().heap == rt.stats().heap_inuse
    rt.verify(3)


SCRIPT = textwrap.dedent("""
    import sys
    import gomp
    from test_lazy_return import fill
    MIB = 1 << 20
    if __name__ == "__main__":
        with gomp.Runtime(procs=1, gogc="off", max_heap="1GiB") as rt:
            def tell(): print(rt.resident().heap // MIB, flush=True)
            rt.run(fill, 16 * MIB)
            gomp.debug.free_os_memory()
            tell()
            kept = []
            for line in sys.stdin:
                kind, mib = line.split()
                if kind == "heap":
                    rt.run(fill, int(mib) * MIB // 8)
                elif kind == "private":
                    kept.append(b"x" * (int(mib) * MIB))
                elif kind == "release":
                    gomp.debug.free_os_memory()
                tell()
            rt.verify(3)
            print("done", flush=True)
""")


class Script:
    """A runtime that has 128 MiB lazily released, in a cgroup; it obeys lines, and says how many MiB of its heap are resident."""

    def __init__(self, cgroup):
        here = os.path.dirname(__file__)
        environment = os.environ | {"GODEBUG": "madvdontneed=0", "PYTHONPATH": os.pathsep.join([here, *sys.path])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=cgroup.enter,
        )  # fmt: skip

    def ask(self, line=None):
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        out, _ = self.process.communicate(timeout=60)
        assert (out.split()[-1:], self.process.returncode) == (["done"], 0)


def test_it_goes_when_the_cgroup_has_little_left_and_nobody_is_killed():
    """An eighth of the limit stays free, for whoever else is in the cgroup: here 80 MiB of the script's own, where 48 are left."""
    with make_cgroup(768 * MIB) as cgroup:
        script = Script(cgroup)
        before = script.ask()
        assert before >= 128
        time.sleep(3 * PERIOD_S)
        assert script.ask("look 0") == before
        cgroup.set_limit(cgroup.level.usage() + 48 * MIB)
        for _ in range(8):
            script.ask("private 10")
            time.sleep(3 * PERIOD_S)
        assert script.ask("look 0") < before - 60
        script.end()
        assert cgroup.oom_kills() == 0


def test_an_allocation_that_fits_beside_what_is_in_use_takes_its_place():
    with make_cgroup(768 * MIB) as cgroup:
        script = Script(cgroup)
        script.ask()
        script.ask("heap 300")
        script.ask("release 0")
        cgroup.set_limit(cgroup.level.usage() + 64 * MIB)
        time.sleep(1)  # the coordinator looks at the limit now and then
        script.ask("heap 300")
        script.end()
        assert cgroup.oom_kills() == 0
