"""What still looks at the shared memory of a runtime that has ended keeps it mapped. Each script is a process: unmapped, it dies of SIGSEGV."""

from __future__ import annotations

import subprocess
import sys

VIEW = """
import gomp
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    first = rt.spans[:1]["npages"]
before = first.tolist()
try:
    gomp.Runtime(procs=1).start()
except gomp.RuntimeLost as error:
    print(error)
assert first.tolist() == before
del first
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    print(rt.run(abs, -1))
"""
THREAD = """
import threading, time, gomp
from gomp.runtime import mapping, waiting
with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    def wait():
        try:
            waiting.Collector().wait_for_end(1 << 40)
        except gomp.RuntimeLost as error:
            print(error)
    waiter = threading.Thread(target=wait)
    waiter.start()
    while not mapping._sleepers:
        time.sleep(0.001)
waiter.join()
mapping.reclaim()
"""


def said(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_view_outlives_its_runtime_and_stands_in_the_way_of_the_next() -> None:
    refused, result = said(VIEW)
    assert refused.startswith("the last runtime of this process is still looked at")
    assert result == "1"


def test_a_thread_that_waits_for_a_collection_is_told_that_the_runtime_has_ended() -> None:
    assert said(THREAD) == ["the runtime has ended"]
