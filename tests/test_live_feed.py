"""What goes to the pages that are open: one reading for all, the latest for who is slow, nothing while nobody looks."""

import asyncio
import json
import threading
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import fields

import pytest

from gomp.cgroup import MemoryCgroup, memory_level
from gomp.core.shm import records
from gomp.runtime import doing, reading
from gomp.runtime.cyclelog import CycleRecord
from gomp.service.live import feed, pagemap
from gomp.service.live.feed import MAX_FOLLOWERS, Feed

NO_CGROUP = MemoryCgroup([])
pytestmark = pytest.mark.usefixtures("mapped")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def parse(event):
    kind, data = event.decode().removesuffix("\n\n").split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.fixture
def quick(monkeypatch):
    """Readings in quick succession."""
    monkeypatch.setattr(feed, "LOOK_S", 0.002)
    return Feed(frame_s=0.004)


@pytest.fixture
def readings(monkeypatch):
    """Every reading that was taken."""
    taken, read = [], reading.read

    def counted(*asked):
        taken.append(read(*asked))
        return taken[-1]

    monkeypatch.setattr(reading, "read", counted)
    return taken


@asynccontextmanager
async def following(feed):
    """What one who joins gets, until it leaves."""
    feed.join()
    try:
        async with aclosing(feed.follow()) as events:
            yield events
    finally:
        feed.leave()


async def next_frames(follower, n):
    found = []
    while len(found) < n:
        event = await anext(follower)
        if event.startswith(b"event: frame"):
            found.append(event)
    return found


def test_a_reading_is_taken_once_for_all(quick, readings):
    async def follow():
        async with following(quick) as one, following(quick) as other:
            return await asyncio.gather(next_frames(one, 3), next_frames(other, 3))

    first, second = run(follow())
    assert all(a is b for a, b in zip(first, second, strict=True))
    times = [parse(event)[1]["now"] for event in first]
    assert times == [reading["now"] for reading in readings[:3]] == sorted(times)


def test_nothing_is_read_while_nobody_looks(quick, readings, monkeypatch):
    looks, look = [], doing.look
    monkeypatch.setattr(doing, "look", lambda: looks.append(look()) or looks[-1])

    async def follow():
        await asyncio.sleep(0.02)
        before = len(looks)
        async with following(quick) as follower:
            await next_frames(follower, 1)
        after = len(looks)
        await asyncio.sleep(0.02)
        return before, after, len(looks)

    before, after, at_the_end = run(follow())
    assert before == 0 < after == at_the_end


def test_who_is_slow_gets_the_latest_and_every_cycle(quick, readings, monkeypatch):
    ended = iter(range(1, 1000))
    monkeypatch.setattr(reading, "read_cycles", lambda after: [{"number": next(ended)}])

    async def follow():
        async with following(quick) as follower:
            got = [await anext(follower)]
            count = len(readings)
            while len(readings) < count + 6:
                await asyncio.sleep(0.01)
            latest = len(readings)
            while sum(event.startswith(b"event: frame") for event in got) < 3:
                got.append(await anext(follower))
            return latest, [parse(event) for event in got]

    latest, events = run(follow())
    frames = [data for kind, data in events if kind == "frame"]
    assert frames[1]["now"] >= readings[latest - 1]["now"], "what was missed is not sent after all"
    cycles = [cycle["number"] for kind, data in events if kind == "cycles" for cycle in data]
    assert cycles == list(range(1, len(cycles) + 1))
    assert len(cycles) > 5


def test_there_are_so_many_at_most(quick):
    for _ in range(MAX_FOLLOWERS):
        assert not quick.is_full
        quick.join()
    assert quick.is_full
    quick.leave()
    assert not quick.is_full


def test_a_reading_that_fails_ends_the_streams_and_the_next_begins_anew(quick, monkeypatch):
    def fail(*asked):
        raise ZeroDivisionError

    async def follow():
        with monkeypatch.context() as patch:
            patch.setattr(reading, "read", fail)
            async with following(quick) as follower:
                with pytest.raises(ZeroDivisionError):
                    await anext(follower)
        async with following(quick) as follower:
            return await anext(follower)

    assert parse(run(follow()))[0] == "frame"


def test_who_is_busy_when_a_reading_fails_learns_of_it(quick, monkeypatch):
    async def follow():
        async with following(quick) as slow, following(quick) as other:
            await asyncio.gather(anext(slow), next_frames(other, 1))
            monkeypatch.setattr(reading, "read", lambda *asked: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await next_frames(other, 100)
            with pytest.raises(ZeroDivisionError):
                await next_frames(slow, 100)

    run(follow())


def test_readings_do_not_wait_for_a_map_that_takes_long(quick, monkeypatch):
    drawn, read = threading.Event(), pagemap.read
    monkeypatch.setattr(pagemap, "read", lambda: (drawn.wait(10), read())[1])

    async def follow():
        async with following(quick) as follower:
            before = [parse(await anext(follower))[0] for _ in range(3)]
            drawn.set()
            while parse(await anext(follower))[0] != "map":
                pass
            return before

    assert run(follow()) == ["frame"] * 3


def test_a_map_that_has_taken_long_is_not_drawn_for_the_next_who_comes(quick, monkeypatch):
    times, read = [], pagemap.read
    monkeypatch.setattr(pagemap, "read", lambda: (times.append(time.monotonic()), time.sleep(0.1), read())[2])

    async def follow():
        for _ in range(3):
            async with following(quick) as follower:
                while parse(await anext(follower))[0] != "map":
                    pass

    run(follow())
    assert len(times) == 1


def test_readings_go_on_without_a_map_where_the_system_allows_no_thread(quick, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(feed, "MAP_S", 0.002)

    async def follow():
        async with following(quick) as follower:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                kinds = {parse(await anext(follower))[0] for _ in range(5)}
            while parse(await anext(follower))[0] != "map":
                pass
            return kinds

    assert run(follow()) == {"frame"}


def test_a_frame_tells_what_each_p_did_between_two_readings(quick, monkeypatch):
    letters = iter("rsmrsm" * 100)
    monkeypatch.setattr(doing, "look", lambda: next(letters) + "i" + "w")
    seen = reading.read(["ria", "siw"], -1, NO_CGROUP)
    assert seen["ps"] == [], "no P has a process"
    named = {"P0": "rs", "P1": "ii", "coordinator": "aw"}
    for idx, name in ((0, "P0"), (1, "P1"), (reading.layout.COORDINATOR_P, "coordinator")):
        reading.memstats._p_record(idx).xpid = 7
        assert {p["name"]: p["did"] for p in reading.read(["ria", "siw"], -1, NO_CGROUP)["ps"]}[name] == named[name]


def test_a_container_is_told_of_where_it_has_a_limit(tmp_path):
    cgroup = MemoryCgroup([memory_level(tmp_path, is_v2=True)])
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert reading.read([], -1, cgroup)["container"] is None
    (tmp_path / "memory.max").write_text("512\n")
    assert reading.read([], -1, cgroup)["container"] == {"usage": 300, "limit": 512}


def test_the_cgroup_is_found_before_there_may_be_no_descriptor_to_look_with(monkeypatch, tmp_path):
    cgroup = MemoryCgroup([memory_level(tmp_path, is_v2=True)])
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("512\n")
    monkeypatch.setattr(MemoryCgroup, "of_this_process", lambda: cgroup)
    made = Feed(frame_s=0.004)
    monkeypatch.setattr(MemoryCgroup, "of_this_process", lambda: NO_CGROUP)

    async def first():
        async with following(made) as follower:
            return parse(await anext(follower))[1]["container"]

    assert run(first()) == {"usage": 300, "limit": 512}


@pytest.mark.parametrize("goal", [8946670875695453929, 1 << 50])
def test_a_goal_that_the_heap_cannot_reach_is_none_of_a_cycle_as_of_the_heap(monkeypatch, goal):
    cycle = CycleRecord(**dict.fromkeys((field.name for field in fields(CycleRecord)), 0) | {"goal": goal})
    monkeypatch.setattr(reading.cyclelog, "read", lambda after: [cycle])
    assert [told["goal"] for told in reading.read_cycles(0)] == [None]


@pytest.mark.parametrize(("is_lazy", "in_memory", "lingering"), [(0, 9, 0), (1, 9, 6), (1, 1, 0), (1, 90, 7)])
def test_what_was_released_lazily_lingers_as_far_as_it_is_in_memory(monkeypatch, is_lazy, in_memory, lingering):
    records.view(records.runtime_dtype, records.RUNTIME)[0].scavenge_lazily = is_lazy
    heap = records.view(records.mheap_dtype, records.MHEAP)[0]
    heap.xheap_inuse, heap.xheap_committed, heap.xheap_released = 2, 3, 7
    monkeypatch.setattr(reading.residency, "resident_bytes", {5: in_memory}.get)
    assert reading.read([], 5, NO_CGROUP)["memory"]["lingering"] == lingering


def test_what_programs_take_while_it_is_read_does_not_linger(monkeypatch):
    records.view(records.runtime_dtype, records.RUNTIME)[0].scavenge_lazily = 1
    heap = records.view(records.mheap_dtype, records.MHEAP)[0]
    heap.xheap_inuse, heap.xheap_committed, heap.xheap_released = 3, 3, 7
    read = reading.memstats.read

    def read_before_more_is_taken():
        stats = read()
        heap.xheap_inuse, heap.xheap_committed = 5, 5
        return stats

    monkeypatch.setattr(reading.memstats, "read", read_before_more_is_taken)
    monkeypatch.setattr(reading.residency, "resident_bytes", lambda fd: int(heap.xheap_committed))
    assert reading.read([], 5, NO_CGROUP)["memory"]["lingering"] == 0
