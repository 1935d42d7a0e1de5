"""What is compiled before anybody calls it: what a later process finds."""

from __future__ import annotations

import sys

import pytest

from gomp.errors import CompileError, ConfigError
from gomp.runtime import program_cache
from gomp.runtime.ahead import compile_ahead
from gomp.runtime.structs import new

GOOD = """
from __future__ import annotations

import gomp

@gomp.struct
class Leaf:
    value: int

@gomp.compiled
def grown(leaf: Leaf | None, n: int, by: float) -> int:
    return 0 if leaf is None else int((leaf.value + n) * by)

@gomp.compiled
def unclear(n): return n

@gomp.compiled
def either(n: int | float): return n
"""
BAD = """
import gomp

@gomp.compiled
def wrong(n: int): return n + "1"
"""


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """A package ``planted`` with these modules."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources):
        for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
            monkeypatch.delitem(sys.modules, name)
        (tmp_path / "planted").mkdir()
        for name, source in {"__init__": "", **sources}.items():
            (tmp_path / "planted" / f"{name}.py").write_text(source)

    return write


def test_functions_are_compiled_for_what_their_annotations_name(plant, heap):
    plant(good=GOOD, again="from planted.good import grown")
    assert compile_ahead(["planted", "planted.good"]) == 1
    (file,) = program_cache.directory().glob("*.pickle")
    assert file.name.startswith("grown-")
    written = file.stat().st_mtime_ns
    from planted.good import Leaf, grown

    assert grown(new(Leaf, 20), 1, 2.0) == 42
    assert [found.stat().st_mtime_ns for found in program_cache.directory().glob("*.pickle")] == [written]


def test_what_cannot_be_compiled_is_said(plant):
    plant(bad=BAD)
    with pytest.raises(CompileError, match=r"bad\.py:\d+: in wrong"):
        compile_ahead(["planted"])


def test_a_module_that_is_not_there_is_said(plant):
    plant()
    with pytest.raises(ConfigError, match=r"there is no module planted\.missing"):
        compile_ahead(["planted.missing"])
