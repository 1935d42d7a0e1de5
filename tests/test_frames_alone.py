"""A script that has frames, and no compiled function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import gomp

@gomp.frame
class Waits(gomp.Frame[int]):
    ch: gomp.Chan[int]
    is_over: bool

    def step(f) -> gomp.Action:
        if f.is_over:
            return f.ret(2)
        f.is_over = True
        return f.recv(f.ch)

def where_i_wait(ch):
    try:
        ch.recv()
    except gomp.Deadlock as error:
        return str(error)

def fails():
    raise ValueError("here")

if __name__ == "__main__":
    with gomp.Runtime(procs=2) as rt:
        try:
            Waits.run(ch=gomp.Chan[int]())
        except gomp.Deadlock as error:
            print(error)
        print(rt.run(where_i_wait, gomp.Chan[int]()))
        rt.run(fails)
"""


def line_of(text: str) -> int:
    return SCRIPT[: SCRIPT.index(text)].count("\n") + 1


def test_its_waits_end_and_reports_name_its_file(tmp_path: Path) -> None:
    script = tmp_path / "frames.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert "chan receive" in done.stdout
    assert f"where_i_wait at {script}:{line_of('ch.recv()')}" in done.stdout
    assert f'{script}", line {line_of("raise ValueError")}, in fails' in done.stderr
    assert "ValueError: here" in done.stderr
