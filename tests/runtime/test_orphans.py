"""What a container's first process does for processes that nobody else waits for, and which of a runtime the kernel is to kill first."""

import subprocess
import sys

import pytest

BURY = """
import os
from gomp.runtime.orphans import bury_orphans

def ended():
    pid = os.fork()
    if not pid:
        os._exit(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

orphan, own, alive = ended(), ended(), os.fork()
if not alive:
    os.read(os.pipe()[0], 1)
bury_orphans({own})
print(os.waitpid(own, 0) == (own, 7 << 8))
try:
    os.waitpid(orphan, 0)
except ChildProcessError:
    print("gone")
os.kill(alive, 9)
print(os.waitpid(alive, 0) == (alive, 9))
"""

SCORE = """
import sys
from gomp.forked import P_OOM_SCORE, SERVICE_OOM_SCORE, be_killed_first
with open("/proc/self/oom_score_adj", "w") as score:
    score.write(sys.argv[1])
be_killed_first({"p": P_OOM_SCORE, "service": SERVICE_OOM_SCORE}[sys.argv[2]])
print(open("/proc/self/oom_score_adj").read().strip())
"""


def run(*arguments):
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, check=True).stdout.split()


def test_orphans_are_reaped_and_nobody_elses_child_is():
    assert run(BURY) == ["True", "gone", "True"]


@pytest.mark.parametrize(
    ("own", "who", "child"), [(0, "p", 1000), (968, "p", 1000), (0, "service", 750), (968, "service", 1000)]
)
def test_who_is_killed_before_the_coordinator_whatever_the_score_of_the_container(own, who, child):
    assert run(SCORE, str(own), who) == [str(child)]
