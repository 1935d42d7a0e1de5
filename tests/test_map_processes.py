"""One map and several processes: they agree, whoever else changes it, collects or dies."""

from __future__ import annotations

import faulthandler
import time

import pytest

import gomp
from gomp.core import COMPILED
from tests.map_load import HIGH, SHARED, Item, claim, is_high, mixed_load

pytestmark = pytest.mark.skipif(not COMPILED, reason="programs exist only in machine code")


def agree(procs: int, seconds: float) -> int:
    """``procs`` processes change one map for so long; how many operations those were."""
    with gomp.Runtime(procs=procs, gogc=30, max_heap="512MiB") as rt:
        SHARED.set(gomp.map(Item))
        running = [rt.go(mixed_load, owner, seconds, 100 + owner) for owner in range(procs)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            gomp.gc()
            time.sleep(0.1)
        outcomes = [each.wait(10 * seconds + 120) for each in running]
        shared = SHARED.get()
        found = {key: item.number for key, item in shared.items()}
        assert len(found) == len(shared)
        model = {key: number for part, _, _ in outcomes for key, number in part.items()}
        assert {key: number for key, number in found.items() if not is_high(key)} == model
        for owner, (_, rounds, _) in enumerate(outcomes):
            last = rounds - 1
            left = {(owner + 1) * HIGH + i: last for i in range(300) if i % 3 != last % 3}
            assert {key: n for key, n in found.items() if is_high(key) and key // HIGH == owner + 1} == left
        assert rt.stats().num_gc > 0
        del shared
        gomp.gc()
        rt.verify(3)
        return sum(done for _, _, done in outcomes)


def test_three_processes_agree() -> None:
    assert agree(3, 2.0) > 100


@pytest.mark.slow
def test_eight_processes_agree_for_a_minute() -> None:
    faulthandler.cancel_dump_traceback_later()  # it takes longer than what is taken for a hang
    assert agree(8, 60.0) > 10_000


def test_each_key_is_set_first_by_one_process() -> None:
    with gomp.Runtime(procs=2) as rt:
        SHARED.set(gomp.map(Item))
        won = [each.wait(60) for each in [rt.go(claim, 400, owner) for owner in range(2)]]
        assert sum(won) == len(SHARED.get()) == 400
        owners = [item.owner for item in SHARED.get().values()]
        assert [owners.count(0), owners.count(1)] == won


def test_a_map_holds_what_another_process_has_declared() -> None:
    with gomp.Runtime(procs=1) as rt:
        rt.run(make_maps)
        items = gomp.globals["map_processes.items"]
        assert type(items) is gomp.Map[Item]
        assert {key: item.number for key, item in items.items()} == {i: i for i in range(100)}
        anything = gomp.globals["map_processes.anything"]
        assert anything["items"] == items
        assert anything[b"numbers"][2] == 5
        assert len(anything) == 2


def make_maps() -> None:
    items = gomp.globals["map_processes.items"] = gomp.map(Item)
    for i in range(100):
        items[i] = gomp.new(Item, number=i)
    anything = gomp.globals["map_processes.anything"] = gomp.map()
    anything["items"] = items
    anything[b"numbers"] = gomp.array(int, 3)
    anything[b"numbers"][2] = 5


def fill(m: gomp.Map[Item], n: int) -> gomp.Map[Item]:
    for i in range(n):
        m[i] = gomp.new(Item, number=i)
    return m


def numbers_of(name: str) -> dict[int, int]:
    return {key: item.number for key, item in gomp.globals[name].items()}


def test_a_map_is_sent_as_a_reference() -> None:
    with gomp.Runtime(procs=2) as rt:
        sent = gomp.map(Item)
        back = rt.run(fill, sent, 20)
        assert back == sent
        assert type(back) is gomp.Map[Item]
        gomp.globals["map_processes.sent"] = sent
        assert rt.run(numbers_of, "map_processes.sent") == {i: i for i in range(20)}
        assert rt.run(lambda cls, m: cls is type(m) is gomp.Map[Item], gomp.Map[Item], sent)
        assert rt.run(count_missing, sent, 30) == 10
        rt.verify(3)


@gomp.compiled
def count_missing(m: gomp.Map[Item], n: int) -> int:
    missing = 0
    for i in range(n):
        if i not in m:
            missing += 1
    return missing


def test_maps_of_structs_that_the_receiver_has_not_declared() -> None:
    @gomp.struct
    class Node:
        value: int
        kids: gomp.Map["Node"]  # noqa: UP037
        lists: gomp.Map[gomp.Array["Leaf"]]  # noqa: UP037
        anything: gomp.Map

    @gomp.struct
    class Leaf:
        of: gomp.Array[gomp.Map["Node"]]  # noqa: UP037

    def grow(node: Node) -> gomp.Map[Node]:
        node.kids = gomp.map(Node)
        node.kids["kid"] = gomp.new(Node, value=5)
        node.lists = gomp.map(gomp.Array[Leaf])
        node.lists[1] = gomp.array(Leaf, 1)
        node.lists[1][0] = gomp.new(Leaf, of=gomp.array(gomp.Map[Node], [node.kids]))
        node.anything = gomp.map()
        node.anything["node"] = node
        node.anything["text"] = gomp.str("leaf")
        return node.kids

    @gomp.compiled
    def kid(m: gomp.Map[Node], name: gomp.Str) -> Node:
        return m[name]

    with gomp.Runtime(procs=1) as rt:
        node = gomp.new(Node, value=1)
        kids = rt.run(grow, node)
        assert type(kids) is gomp.Map[Node]
        assert kids == node.kids == node.lists[1][0].of[0]
        assert node.anything["node"].kids["kid"].value == 5
        assert node.anything["text"] == "leaf"
        assert rt.run(kid, kids, gomp.str("kid")) == kids["kid"]
        del node, kids
        rt.verify(3)
