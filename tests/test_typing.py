"""Type checkers understand structs: an example that uses all of it passes ``mypy --strict``, and what is wrong in it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

EXAMPLE = Path(__file__).parent / "data" / "typing" / "structs.py"
WRONG = """

def wrong(node: Node) -> None:
    node.value = "text"
    node.missing
    node.place.x = "text"
    node.history[0] = "text"
    gomp.new(Node).value.bit_length().missing
    total(3)
    gomp.map(str, Node)[3]
    gomp.map(int, Node)[3] = 4
    names: gomp.Map[Node, Node]
    gomp.map(str, Node).get("a").value
"""


def mypy(file, cache):
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "--no-error-summary", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    return done.stdout


def test_the_example_is_typed_and_runs(tmp_path):
    assert mypy(EXAMPLE, tmp_path) == ""
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("9 113 3.0 root b'k' [2, 3, 0, 0, 0, 5]\n['FIRST', 'first'] 40 [0.5]\n", "")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(EXAMPLE.read_text() + WRONG)
    first = EXAMPLE.read_text().count("\n") + 4
    found = {int(line.split(":")[1]) for line in mypy(wrong, tmp_path).splitlines() if ": error: " in line}
    assert found == set(range(first, first + 10))
