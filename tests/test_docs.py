"""Every block of code in the documentation runs, and its assertions hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GCTRACE = re.compile(r"^gc \d+ @[\d.]+s \d+%: \S+ ms clock, \S+ ms cpu, \d+->\d+->\d+ MB, \d+ MB goal", re.MULTILINE)


def blocks() -> Iterator[object]:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, match in enumerate(BLOCK.finditer(page.read_text()), 1):
            yield pytest.param(match[1], match[2], id=f"{page.stem}-{number}")


def run(language: str, code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    if language == "python":
        script = directory / "block.py"
        script.write_text(code)
        command = [sys.executable, str(script)]
    else:
        command = ["bash", "-euc", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, cwd=directory)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Of the blocks that are to be tested, by their code: most wait for processes to start, so two run at a time."""
    chosen = [item.callspec.params for item in request.session.items if item.path == Path(__file__)]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        yield {
            params["code"]: pool.submit(run, params["language"], params["code"], tmp_path_factory.mktemp("block"))
            for params in chosen
        }


@pytest.mark.parametrize(("language", "code"), list(blocks()))
def test_block(language, code, outcomes):
    done = outcomes[code].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or done.stderr, "a block shows something"
    if "gctrace=1" in code and "2>" not in code:
        assert GCTRACE.search(done.stderr)
