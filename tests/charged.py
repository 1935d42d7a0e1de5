"""A runtime in a memory cgroup of its own, whose heap peaks; what the cgroup is charged is asked of the cgroup. For tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

from gomp.stress.cgroup import OwnCgroup

MIB = 1 << 20
SCRIPT = textwrap.dedent("""
    import json
    import sys
    import time

    import gomp
    from charged import churn, fill

    if __name__ == "__main__":
        with gomp.Runtime(procs=2, max_heap="1GiB") as rt:
            rt.run(fill, 1 << 10)
            rt.run(churn, 1)
            for line in sys.stdin:
                what, _, argument = line.strip().partition(" ")
                began, answer = time.monotonic(), None
                if what == "fill":
                    answer = rt.run(fill, int(argument))
                elif what == "gc":
                    rt.gc()
                elif what == "free":
                    answer = gomp.debug.free_os_memory(now=argument == "now")
                elif what == "churn":
                    answer = rt.run(churn, int(argument))
                elif what == "verify":
                    answer = rt.verify(3)
                elif what == "stats":
                    stats, resident = rt.stats(), rt.resident()
                    answer = {
                        "heap_released": stats.heap_released, "heap_inuse": stats.heap_inuse, "heap_idle": stats.heap_idle,
                        "resident": resident.heap, "background_s": stats.scavenge.background_s,
                        "background_bytes": stats.scavenge.background_bytes, "next_gc": stats.next_gc,
                    }
                print(json.dumps([answer, time.monotonic() - began]), flush=True)
""")


def _compile() -> tuple[Any, Any]:
    import gomp

    @gomp.compiled
    def fill(nbytes: int) -> int:
        """An array of so many bytes, each page of it written, and dropped."""
        array = gomp.array(int, nbytes // 8)
        wrong = 0
        for at in range(0, nbytes // 8, 512):
            if array[at] != 0:
                wrong += 1
            array[at] = at + 1
        return wrong

    @gomp.compiled
    def churn(mib: int) -> int:
        """So much garbage in small objects."""
        for _ in range(mib * 1024):
            gomp.array(int, 127)
        return mib

    return fill, churn


fill, churn = _compile()


class Charged:
    """The script in ``cgroup``: it obeys one line at a time."""

    def __init__(self, cgroup: OwnCgroup, godebug: str = "", also_enter: Callable[[], object] | None = None) -> None:
        def enter() -> None:
            cgroup.enter()
            if also_enter:
                also_enter()

        self.cgroup = cgroup
        here = os.path.dirname(__file__)
        environment = os.environ | {"GODEBUG": godebug, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=enter,
        )  # fmt: skip

    def ask(self, line: str) -> tuple[Any, float]:
        """The answer, and the seconds that it took there."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[Any, float]:
        answer, took = json.loads(self.process.stdout.readline())
        return answer, took

    @property
    def charge(self) -> int:
        """What the cgroup is charged, in bytes; files that were read, which go when anybody needs the memory, left out."""
        level = self.cgroup.level
        limit, room = level.limit(), level.headroom()
        return level.usage() if limit is None else limit - room

    def falls_below(self, nbytes: int, within_s: float) -> float:
        """After how many seconds the charge is no more than that."""
        began = time.monotonic()
        while self.charge > nbytes:
            if time.monotonic() - began > within_s:
                raise AssertionError(
                    f"{self.charge / MIB:.1f} MiB are charged after {within_s} s, not {nbytes / MIB:.1f}"
                )
            time.sleep(0.005)
        return time.monotonic() - began

    def end(self) -> None:
        out, _ = self.process.communicate(timeout=60)
        assert (out, self.process.returncode) == ("", 0)
