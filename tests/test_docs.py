"""Every block of code in the documentation runs, and its assertions hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GCTRACE = re.compile(r"^gc \d+ @[\d.]+s \d+%: \S+ ms clock, \S+ ms cpu, \d+->\d+->\d+ MB, \d+ MB goal", re.MULTILINE)


def blocks() -> Iterator[object]:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, match in enumerate(BLOCK.finditer(page.read_text()), 1):
            yield pytest.param(match[1], match[2], id=f"{page.stem}-{number}")


@pytest.mark.parametrize(("language", "code"), list(blocks()))
def test_block(language, code, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    if language == "python":
        script = tmp_path / "block.py"
        script.write_text(code)
        command = [sys.executable, str(script)]
    else:
        command = ["bash", "-euc", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or done.stderr, "a block shows something"
    if "gctrace=1" in code:
        assert GCTRACE.search(done.stderr)
