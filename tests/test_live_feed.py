"""What goes to the pages that are open: one reading for all, the latest for who is slow, nothing while nobody looks."""

import asyncio
import json
from contextlib import aclosing

import pytest

from gomp.cgroup import MemoryCgroup, memory_level
from gomp.runtime import doing, reading
from gomp.service.live import feed
from gomp.service.live.feed import MAX_FOLLOWERS, Feed

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

    def counted(looks):
        taken.append(read(looks))
        return taken[-1]

    monkeypatch.setattr(reading, "read", counted)
    return taken


async def next_frames(follower, n):
    found = []
    while len(found) < n:
        event = await anext(follower)
        if event.startswith(b"event: frame"):
            found.append(event)
    return found


def test_a_reading_is_taken_once_for_all(quick, readings):
    async def follow():
        async with aclosing(quick.follow()) as one, aclosing(quick.follow()) as other:
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
        async with aclosing(quick.follow()) as follower:
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
        async with aclosing(quick.follow()) as follower:
            got = [await anext(follower) for _ in range(3)]
            count = len(readings)
            while len(readings) < count + 6:
                await asyncio.sleep(0.01)
            latest = len(readings)
            got += [await anext(follower) for _ in range(2)]
            return latest, [parse(event) for event in got]

    latest, events = run(follow())
    frames = [data for kind, data in events if kind == "frame"]
    assert frames[-1]["now"] >= readings[latest - 1]["now"], "what was missed is not sent after all"
    cycles = [cycle["number"] for kind, data in events if kind == "cycles" for cycle in data]
    assert cycles == list(range(1, len(cycles) + 1))
    assert len(cycles) > 5


def test_there_are_so_many_at_most(quick):
    async def follow():
        followers = [quick.follow() for _ in range(MAX_FOLLOWERS)]
        for follower in followers:
            await anext(follower)
        assert quick.is_full
        assert [event async for event in quick.follow()] == []
        for follower in followers:
            await follower.aclose()
        return quick.is_full

    assert not run(follow())


def test_a_reading_that_fails_ends_the_streams_and_the_next_begins_anew(quick, monkeypatch):
    def fail(looks):
        raise ZeroDivisionError

    async def follow():
        with monkeypatch.context() as patch:
            patch.setattr(reading, "read", fail)
            with pytest.raises(ZeroDivisionError):
                await anext(quick.follow())
        async with aclosing(quick.follow()) as follower:
            return await anext(follower)

    assert parse(run(follow()))[0] == "frame"


def test_a_frame_tells_what_each_p_did_between_two_readings(quick, monkeypatch):
    letters = iter("rsmrsm" * 100)
    monkeypatch.setattr(doing, "look", lambda: next(letters) + "i" + "w")
    seen = reading.read(["ria", "siw"])
    assert seen["ps"] == [], "no P has a process"
    named = {"P0": "rs", "P1": "ii", "coordinator": "aw"}
    for idx, name in ((0, "P0"), (1, "P1"), (reading.layout.COORDINATOR_P, "coordinator")):
        reading.memstats._p_record(idx).xpid = 7
        assert {p["name"]: p["did"] for p in reading.read(["ria", "siw"])["ps"]}[name] == named[name]


def test_a_container_is_told_of_where_it_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CGROUP", MemoryCgroup([memory_level(tmp_path, is_v2=True)]))
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert reading.read([])["container"] is None
    (tmp_path / "memory.max").write_text("512\n")
    assert reading.read([])["container"] == {"usage": 300, "limit": 512}
