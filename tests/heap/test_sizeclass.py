"""The size classes and the slot of every request up to 40000 bytes, against Go's own tables (tests/data/sizeclasses)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gomp.core import kernel
from gomp.core.heap import sizeclass as sc
from gomp.core.shm.layout import PAGE_SIZE

DATA = Path(__file__).parents[1] / "data" / "sizeclasses"


def load(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def requests(name: str, kind: str) -> list[tuple[int, int, int, int, int]]:
    return [tuple(row) for row in load(name)[kind]]


@kernel("int64(int64)")
def class_of_size(n: int) -> int:
    return sc.size_class(n)


@kernel("int64(int64)")
def span_shape(spc: int) -> int:
    return sc.SPAN_ELEM_SIZE[spc] * 1_000_000 + sc.SPAN_NELEMS[spc] * 100 + sc.SPAN_NPAGES[spc]


def test_constants_are_gos() -> None:
    table = load("classes.json")
    assert sc.NUM_CLASSES == table["num_size_classes"] == len(table["classes"]) + 1
    assert sc.MAX_SMALL_REQUEST == table["max_small_request"]
    assert sc.HEADER_SIZE == table["malloc_header_bytes"]
    assert sc.MAX_INLINE == table["header_applies_to_pointerful_requests_above"]


@pytest.mark.parametrize("row", load("classes.json")["classes"], ids=lambda row: f"class{row['class']}")
def test_each_class_is_gos(row: dict[str, Any]) -> None:
    c = row["class"]
    assert (sc.SIZES[c], sc.CLASS_PAGES[c], sc.DIV_MAGIC[c]) == (row["size"], row["pages"], row["div_magic"])
    if c == 1:  # never used: the tiny allocator serves pointer-free requests of 8 bytes
        assert sc.NELEMS_NOSCAN[c] == 1024
    assert (sc.NELEMS_NOSCAN[c], sc.NELEMS_SCAN[c]) == (row["nelems_noscan"], row["nelems_scan"])
    assert (sc.reserve_bytes(row["size"], row["pages"], True) > 0) == row["inline_mark_bits"]


def test_division_magic_is_exact_everywhere_in_a_span() -> None:
    for c in range(1, sc.NUM_CLASSES):
        size = sc.SIZES[c]
        span_bytes = sc.CLASS_PAGES[c] * PAGE_SIZE
        edges = [k + d for k in range(0, span_bytes, size) for d in (0, 1, size - 1) if k + d < span_bytes]
        assert all(offset * sc.DIV_MAGIC[c] >> 32 == offset // size for offset in edges)


def test_kernels_read_the_same_tables() -> None:
    for spc in range(2 * sc.NUM_CLASSES):
        nelems = (sc.NELEMS_NOSCAN if spc % 2 else sc.NELEMS_SCAN)[spc // 2]
        assert span_shape(spc) == sc.SIZES[spc // 2] * 1_000_000 + nelems * 100 + sc.CLASS_PAGES[spc // 2]


def test_the_class_of_every_small_size() -> None:
    expected = [c for c in range(1, sc.NUM_CLASSES) for _ in range(sc.SIZES[c - 1], sc.SIZES[c])]
    assert [class_of_size(n) for n in range(1, sc.MAX_SMALL + 1)] == expected


@pytest.mark.parametrize("kind", ["noscan", "scan"])
def test_every_request_gets_gos_slot(kind: str) -> None:
    rows = requests("requests.json", kind)
    assert [lo for lo, *_ in rows[1:]] == [hi + 1 for _, hi, *_ in rows[:-1]]
    for lo, hi, slot, header, c in rows:
        for size in range(lo, hi + 1):
            assert sc.round_up_size(size, kind == "noscan") == slot - header
            if kind == "noscan" and size < sc.TINY_SIZE:
                continue  # the tiny allocator's, see the observed slots
            spc = sc.span_class_for(size, kind == "scan")
            assert spc == 2 * c + (kind == "noscan")


@pytest.mark.parametrize("kind", ["noscan", "scan"])
def test_every_request_gets_the_slot_that_was_observed(kind: str) -> None:
    for lo, hi, slot, header, c in requests("observed.json", kind):
        for size in range(lo, hi + 1):
            spc = sc.span_class_for(size, kind == "scan")
            assert spc == 2 * c + (kind == "noscan")
            if c:
                assert (sc.SIZES[c], sc.round_up_size(hi, kind == "noscan")) == (slot, slot - header)


@pytest.mark.parametrize(
    ("size", "noscan", "expected"),
    [(512, False, 512), (513, False, 568), (1016, False, 1016), (1017, False, 1144), (32760, False, 32760),
     (32760, True, 32768), (40000, True, 40960)],
)  # fmt: skip
def test_rounding_up_as_go_does(size: int, noscan: bool, expected: int) -> None:
    assert sc.round_up_size(size, noscan) == expected
