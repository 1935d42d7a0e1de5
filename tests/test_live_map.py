"""The map of the heap's pages, of heaps whose pages are known."""

from heap_world import heap_world

from gomp.core.shm import layout
from gomp.runtime import memstats
from gomp.service.live import pagemap
from gomp.service.live.pagemap import CELLS, KINDS, LARGE, LEVELS

MIB = 1 << 20
IN_SPANS = ("swept", "cached", "unswept", "large")


def decode(letter):
    """(kind, fullness)."""
    code = ord(letter) - 48
    return KINDS[code // LEVELS], code % LEVELS


def in_use(found):
    return sum(found.bytes_by_kind[kind] for kind in IN_SPANS)


def test_an_empty_heap_has_no_cells():
    with heap_world():
        found = pagemap.read()
    assert (found.cells, sum(found.bytes_by_kind.values())) == ("", 0)


def test_pages_are_told_by_what_they_are_for():
    with heap_world() as world:
        small = [world.new(0, 64) for _ in range(1000)]
        large = world.new(0, MIB)
        found = pagemap.read()
        assert found.bytes_by_kind["large"] == MIB
        assert found.bytes_by_kind["cached"] == layout.PAGE_SIZE, "the span that the P allocates from"
        assert in_use(found) == memstats.read().heap_inuse

        world.collect()
        stats, found = memstats.read(), pagemap.read()
        assert in_use(found) == stats.heap_inuse == found.bytes_by_kind["swept"] + MIB
        assert (found.bytes_by_kind["free"], found.bytes_by_kind["released"]) == (stats.heap_free, stats.heap_released)
        assert sum(found.bytes_by_kind.values()) == stats.heap_sys

        world.begin_marking()
        world.finish_marking()
        assert pagemap.read().bytes_by_kind["unswept"] == stats.heap_inuse, "nothing is swept yet, and nobody has died"
        for root in (*small, large):
            world.drop(root)
        world.collect()
        assert in_use(pagemap.read()) == 0


def test_cells_stand_for_equally_many_pages():
    with heap_world() as world:
        world.new(0, 33 * MIB)
        found, end = pagemap.read(), int(world.mheap.end_page)
        assert (found.cell_pages, len(found.cells)) == (2, end // 2)
        assert len(found.cells) <= CELLS
        kinds = [decode(letter) for letter in found.cells]
        assert kinds[:2112] == [(KINDS[LARGE], LEVELS - 1)] * 2112
        assert {kind for kind, fullness in kinds[2112:]} <= {"released", "free"}


def test_a_cell_says_what_most_of_its_pages_in_spans_are_for_and_how_many_are(monkeypatch):
    monkeypatch.setattr(pagemap, "CELLS", 64)
    with heap_world() as world:
        large = 6  # pages; of the first cell of eight there is one more, for a small object
        world.new(0, large * layout.PAGE_SIZE)
        world.new(0, 64)
        found = pagemap.read()
        assert found.cell_pages == 8
        cells = [decode(letter) for letter in found.cells]
        assert cells[:2] == [("large", 7), ("free", 0)], "the second is in the P's page cache"
        assert cells[-1] == ("released", 0)


def test_blocks_make_no_difference(monkeypatch):
    with heap_world() as world:
        for i in range(200):
            world.new(0, 1 << (4 + i % 14))
        world.collect()
        whole = pagemap.read()
        monkeypatch.setattr(pagemap, "BLOCK_PAGES", layout.CHUNK_PAGES)
        assert pagemap.read() == whole
