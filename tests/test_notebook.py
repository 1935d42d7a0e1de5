"""A notebook takes part in a runtime: cells of a real Jupyter kernel attach, work, wait, are interrupted, and are restarted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

import gomp
from gomp.core import COMPILED
from gomp.runtime import discovery

if not COMPILED:
    pytest.skip("runs processes of its own", allow_module_level=True)
manager = pytest.importorskip("jupyter_client.manager", reason="needs ipykernel")

NAME = f"notebook-{os.getpid()}"
WAIT_S = 60


class Notebook:
    """A kernel, and what its cells print."""

    def __init__(self) -> None:
        self.kernel, self.client = manager.start_new_kernel(
            startup_timeout=WAIT_S, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )

    def run(self, cell: str, meanwhile: Callable[[], object] | None = None) -> str:
        """What the cell prints, or the last line of its traceback. ``meanwhile`` is called once it has printed something."""
        said: list[str] = []

        def take(message: dict) -> None:
            nonlocal meanwhile
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
                if meanwhile:
                    meanwhile()
                    meanwhile = None
            elif message["msg_type"] == "error":
                said.append(f"{content['ename']}: {content['evalue']}".removesuffix(": "))

        self.client.execute_interactive(cell, timeout=WAIT_S, output_hook=take)
        return "".join(said).strip()

    def close(self) -> None:
        self.client.stop_channels()
        self.kernel.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def rt() -> Iterator[gomp.Runtime]:
    with gomp.Runtime(procs=2, max_heap="256MiB", name=NAME, max_attached=1) as runtime:
        yield runtime
        assert runtime.verify(3).startswith("verified")


@pytest.fixture
def notebook(rt: gomp.Runtime) -> Iterator[Notebook]:
    made = Notebook()
    yield made
    made.close()
    deadline = time.monotonic() + WAIT_S
    while attached():
        assert time.monotonic() < deadline, "the notebook is attached still"
        time.sleep(0.01)


def attached() -> list[int]:
    return next(info.attached for info in discovery.list_runtimes() if info.name == NAME)


def test_its_cells_define_types_and_functions_and_share_what_they_make(rt: gomp.Runtime, notebook: Notebook) -> None:
    gomp.globals["prices"] = gomp.array(float, 2)
    gomp.globals["prices"][0] = 3.5
    assert (
        notebook.run(f"import gomp; rt = gomp.attach({NAME!r}); prices = gomp.globals['prices']; print(prices[0])")
        == "3.5"
    )
    assert notebook.run("prices[1] = 1.5") == ""
    assert gomp.globals["prices"][1] == 1.5
    types = """
        @gomp.struct
        class Node:
            value: int
            next: "Node"

        @gomp.compiled
        def total(n: int) -> int:
            head: Node = None
            for i in range(n):
                head = gomp.new(Node, value=i, next=head)
            found = 0
            while head is not None:
                found += head.value
                head = head.next
            return found
    """
    assert notebook.run(types) == ""
    assert notebook.run("print(total(1000), gomp.new(Node, value=7, next=None).value)") == "499500 7"
    assert notebook.run("rt.close(); print(prices[0])").startswith("RuntimeLost: ")
    assert notebook.run(f"rt = gomp.attach({NAME!r}); print(gomp.globals['prices'][1])") == "1.5"


def test_what_a_cell_has_shown_is_kept_until_the_notebook_is_reset(rt: gomp.Runtime, notebook: Notebook) -> None:
    attaches = f"import gomp; rt = gomp.attach({NAME!r})"
    assert notebook.run(f"{attaches}; numbers = gomp.ndarray(3, float); numbers") == ""
    assert "RuntimeWarning" in notebook.run("rt.close(); del numbers")
    assert "(a notebook keeps what it has shown: %reset)" in notebook.run(attaches)
    assert notebook.run("%reset -f") == ""
    assert notebook.run(attaches) == ""


def test_a_cell_that_waits_can_be_interrupted_and_the_next_goes_on(rt: gomp.Runtime, notebook: Notebook) -> None:
    gomp.globals["answers"] = answers = gomp.Chan[int]()
    joins = f"import gomp; gomp.Chan[int]; rt = gomp.attach({NAME!r}); answers = gomp.globals['answers']"
    assert notebook.run(joins) == ""
    interrupted = notebook.run("print('waits', flush=True)\nanswers.recv()", notebook.kernel.interrupt_kernel)
    assert interrupted.endswith("KeyboardInterrupt")
    assert notebook.run("print('waits', flush=True)\nprint(answers.recv())", lambda: answers.send(42)).endswith("42")


def test_a_kernel_that_is_restarted_attaches_again(rt: gomp.Runtime, notebook: Notebook) -> None:
    before = attached()
    cell = f"import gomp; rt = gomp.attach({NAME!r}, timeout=10); kept = [gomp.array(float, 1000) for _ in range(10)]; print(len(kept))"
    for _ in range(2):
        assert notebook.run(cell) == "10"
        notebook.kernel.restart_kernel(now=True)
        notebook.client.wait_for_ready(timeout=WAIT_S)
    assert before == []
