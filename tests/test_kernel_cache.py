"""Kernels that are in the cache: found without a look at their sources, and without waiting for whoever compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gomp
from gomp import kernels
from gomp.core import COMPILED, jit
from gomp.kernels import load_all_kernels

if not COMPILED:
    pytest.skip("there is no cache without machine code", allow_module_level=True)


@pytest.fixture(scope="module")
def core() -> list[jit.Kernel]:
    load_all_kernels()
    jit._index.cache_clear()
    return [k for k in jit._kernels if k.is_core]


def test_the_index_says_of_each_kernel_what_its_sources_say(core):
    assert jit._index() == {k.symbol: k._cache_name() for k in core}


def test_in_the_index_every_kernel_comes_after_those_that_it_calls(core):
    place = {symbol: i for i, symbol in enumerate(jit._index())}
    for k in core:
        assert all(place[callee.symbol] < place[k.symbol] for callee in jit._kernels_named_by(k.py_func)), k


def test_who_finds_everything_in_the_cache_does_not_wait_for_another_that_compiles(core):
    with jit.locked_cache():
        subprocess.run([sys.executable, "-m", "gomp", "kernels"], check=True, capture_output=True, timeout=60)


def test_an_index_that_is_damaged_is_none(core, monkeypatch, tmp_path):
    (tmp_path / "index.json").write_text("")
    monkeypatch.setattr(jit, "_index_file", lambda: tmp_path / "index.json")
    assert jit._index.__wrapped__() == {}


def test_a_process_whose_sources_have_been_changed_under_it_names_no_machine_code(tmp_path):
    shutil.copytree(Path(gomp.__file__).parent, tmp_path / "gomp", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
from gomp.core import jit
from gomp.core.sched import status
print(jit.sources_hash(jit.Path(status.__file__)) != "")
jit.sources_hash.cache_clear()
with open(status.__file__, "a") as file:
    file.write("# as by an upgrade of the package that it runs from")
try:
    jit.sources_hash(jit.Path(status.__file__))
except jit.SourcesChanged as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    changed = tmp_path / "gomp" / "core" / "sched" / "status.py"
    assert done.stdout == f"True\n{changed} has been changed since this process began: start it again\n", done.stderr


def test_a_compiler_that_nobody_waits_for_any_more_says_nothing(monkeypatch):
    """Who has been ended by SIGTERM closes its pipes a moment before the kernel ends its compilers."""
    compiled, todo, done = [], kernels._Pipe(), kernels._Pipe()
    monkeypatch.setattr(jit, "compile_kernel", compiled.append)
    os.write(todo.writer, b"".join(map(kernels._NUMBER.pack, range(3))))
    todo.close_writer()
    done.close_reader()
    kernels._compile_each(["a", "b", "c"], todo, done)
    assert compiled == ["a"]
    todo.close()
    done.close()
