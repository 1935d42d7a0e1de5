"""Pickled references between real processes: they arrive as the same object, once, and nothing of them is left."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import Client, Listener

import pytest

import gomp
from gomp.core.shm import layout
from gomp.core.shm.records import p_dtype, view
from gomp.runtime.channel import MAX_PAYLOAD
from gomp.runtime.transit import outbox
from tests.free_slots import free_slots


@gomp.struct
class Node:
    next: Node
    value: int


@pytest.fixture
def no_leak(rt: gomp.Runtime) -> Iterator[None]:
    """What a test sends leaves no slot behind in the script, and nothing on the Ps."""
    rt.run(abs, 1)
    gc.collect()  # exceptions and the frames in their tracebacks
    outbox.settle()
    free = free_slots()
    yield
    gc.collect()
    outbox.settle()
    assert len(outbox) == 0
    assert free_slots() >= free


def touch(node: Node) -> Node:
    node.value += 1
    return node


def chain(n: int) -> list[Node]:
    nodes = [gomp.new(Node, value=i) for i in range(n)]
    for node, after in pairwise(nodes):
        node.next = after
    return nodes


def in_transit() -> int:
    """How much the P that runs this has sent, and not yet had taken from it."""
    outbox.settle()
    return len(outbox)


def two_counts() -> list[int]:
    return [g.wait() for g in [gomp.go(in_transit), gomp.go(in_transit)]]


def test_arguments_and_results_are_the_same_object(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node, value=4)
    back = rt.run(touch, node)
    assert back == node
    assert node.value == 5


def test_many_references_in_one_result(rt: gomp.Runtime, no_leak: None) -> None:
    nodes = rt.run(chain, 1000)
    assert [node.value for node in nodes] == list(range(1000))
    assert nodes[3].next == nodes[4]
    del nodes
    assert rt.run(two_counts) == [0, 0]


def test_one_object_twice_in_one_pickle_arrives_as_one(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node)
    assert rt.run(lambda a, b: a is b and a == b, node, node)


def test_what_only_the_message_holds_survives_collections(rt: gomp.Runtime, no_leak: None) -> None:
    data = pickle.dumps(gomp.new(Node, value=77))
    for _ in range(3):
        rt.gc()
    assert pickle.loads(data).value == 77


def test_a_pickle_is_received_once(rt: gomp.Runtime, no_leak: None) -> None:
    data = pickle.dumps(gomp.new(Node))
    kept = pickle.loads(data)
    with pytest.raises(gomp.StaleReference, match="received before"):
        pickle.loads(data)
    with pytest.raises(gomp.StaleReference, match="received before"):
        rt.run(pickle.loads, data)
    del kept


def test_what_was_received_before_has_the_name_that_its_users_know(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node)
    for sent, name in ((gomp.ndarray(3), "ndarray"), (gomp.weak(node), "weak pointer")):
        data = pickle.dumps(sent)
        kept = pickle.loads(data)
        with pytest.raises(gomp.StaleReference, match=f"this reference to a {name} was received before"):
            pickle.loads(data)
        del kept


def test_a_slot_that_was_used_again_is_not_mistaken(rt: gomp.Runtime, no_leak: None) -> None:
    first = pickle.dumps(gomp.new(Node, value=1))
    pickle.loads(first)
    outbox.settle()
    second = pickle.dumps(gomp.new(Node, value=2))  # in the slots of the first
    with pytest.raises(gomp.StaleReference):
        pickle.loads(first)
    assert pickle.loads(second).value == 2


def test_bytes_that_nobody_sent_are_refused(rt: gomp.Runtime, no_leak: None) -> None:
    make, (identity, p, deaths, slot, ticket_slot, number, key, declared) = gomp.new(Node).__reduce__()
    for wrong in [(-1, ticket_slot), (200, ticket_slot), (1 << 40, ticket_slot), (p, -5), (p, 1 << 40), (p, slot)]:
        with pytest.raises(gomp.StaleReference):
            make(identity, wrong[0], 0, slot, wrong[1], number, key, declared)
    with pytest.raises(gomp.StaleReference):
        make(identity, p, deaths, slot, ticket_slot, number + 1, key, declared)
    with pytest.raises(gomp.RuntimeLost, match="another runtime"):
        make((1, 2), p, deaths, slot, ticket_slot, number, key, declared)
    make(identity, p, deaths, slot, ticket_slot, number, key, declared)


def test_a_process_without_a_runtime_says_what_to_do(rt: gomp.Runtime, no_leak: None) -> None:
    data = pickle.dumps(gomp.new(Node))
    done = subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"],
        input=data, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"no runtime is open in this one" in done.stderr
    assert pickle.loads(data).value == 0  # it took nothing


def receive_all(data: list[bytes]) -> list[int]:
    """The values of those that this P was the one to get."""
    got = []
    for one in data:
        with contextlib.suppress(gomp.StaleReference):
            got.append(pickle.loads(one).value)
    return got


def test_of_two_processes_with_the_same_bytes_one_gets_the_object(rt: gomp.Runtime, no_leak: None) -> None:
    data = [pickle.dumps(gomp.new(Node, value=i)) for i in range(1000)]
    both = [rt.go(receive_all, data), rt.go(receive_all, data)]
    rt.gc()
    mine = receive_all(data)
    got = [*both[0].wait(), *both[1].wait(), *mine]
    assert sorted(got) == list(range(1000))
    del both


def fail_with(node: Node) -> None:
    raise ValueError(node)


def test_references_in_exceptions_arrive(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node, value=3)
    with pytest.raises(ValueError, match="value=3") as caught:
        rt.run(fail_with, node)
    assert caught.value.args[0] == node
    caught.value.__cause__ = None
    del caught
    assert rt.run(two_counts) == [0, 0]


def test_what_cannot_be_sent_is_taken_back(rt: gomp.Runtime, no_leak: None) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        rt.run(touch, [gomp.new(Node), threading.Lock()])
    with pytest.raises(gomp.MessageTooLarge):
        rt.run(touch, gomp.new(Node), bytes(MAX_PAYLOAD + 1))


def unpicklable() -> list[object]:
    return [gomp.new(Node), threading.Lock()]


def test_a_result_that_cannot_be_sent_is_taken_back(rt: gomp.Runtime, no_leak: None) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        rt.run(unpicklable)
    assert rt.run(two_counts) == [0, 0]


def test_a_result_that_nobody_waits_for_is_dropped(rt: gomp.Runtime, no_leak: None) -> None:
    for _ in range(5):
        rt.go(chain, 10)
    rt.run(time.sleep, 0.2)
    rt.run(abs, 1)
    assert rt.run(two_counts) == [0, 0]


def refuse_arguments() -> None:
    raise AssertionError("never called")


def test_arguments_that_were_never_received_are_taken_back(rt: gomp.Runtime, no_leak: None) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return refuse_arguments, ()

    with pytest.raises(AssertionError):
        rt.run(touch, Bomb(), gomp.new(Node))


def die_with(node: Node) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_receiver_that_is_killed_takes_the_reference_with_it(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node, value=1)
    for _ in range(3):
        with pytest.raises(gomp.WorkerDied):
            rt.run(die_with, node)
    assert rt.run(touch, node) == node


def test_arguments_of_a_goroutine_that_had_not_started_are_sent_again(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node, value=1)
    naps = [rt.go(time.sleep, 20) for _ in range(2)]
    waiting = rt.go(touch, node)  # behind one of them
    time.sleep(0.5)
    for p in range(2):
        os.kill(int(view(p_dtype, layout.p_addr(p))[0].xpid), signal.SIGKILL)
    assert waiting.wait(30) == node
    assert node.value == 2
    for nap in naps:
        with pytest.raises(gomp.WorkerDied):
            nap.wait(30)
    del waiting, naps


def pickled_here(value: int) -> tuple[int, bytes]:
    return os.getpid(), pickle.dumps(gomp.new(Node, value=value))


def test_what_a_killed_sender_sent_dies_with_it(rt: gomp.Runtime, no_leak: None) -> None:
    pid, data = rt.run(pickled_here, 5)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(gomp.WorkerDied):
        rt.run(time.sleep, 0.2)
    with pytest.raises(gomp.StaleReference, match="has died"):
        pickle.loads(data)


def test_a_result_whose_references_died_with_its_p_is_a_death(rt: gomp.Runtime, no_leak: None) -> None:
    """As if the P had died a little earlier: whoever tries again then, does so now."""
    ps = [view(p_dtype, layout.p_addr(p))[0] for p in range(2)]
    ended = sum(int(p.programs) for p in ps)
    goroutines = [rt.go(chain, 3) for _ in ps]
    while sum(int(p.programs) for p in ps) < ended + len(ps):
        time.sleep(0.01)
    time.sleep(0.2)  # until their results have left them
    killed = {int(p.xpid) for p in ps}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    while {0, *killed} & {int(p.xpid) for p in ps}:
        time.sleep(0.01)
    for goroutine in goroutines:
        with pytest.raises(
            gomp.WorkerDied, match=r"before its result was received: the sender of this reference to a Node, P\d"
        ):
            goroutine.wait(30)
    assert len(rt.run(chain, 3)) == 3


def outlive(seconds: float) -> None:
    """Start a goroutine whose result nobody will be there to receive."""
    gomp.go(slow_chain, seconds)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def slow_chain(seconds: float) -> list[Node]:
    time.sleep(seconds)
    return chain(10)


def test_a_result_for_a_process_that_has_died_is_taken_back(rt: gomp.Runtime, no_leak: None) -> None:
    with pytest.raises(gomp.WorkerDied):
        rt.run(outlive, 0.5)
    rt.run(time.sleep, 1.0)
    assert rt.run(two_counts) == [0, 0]


def follow(pointer: gomp.Weak[Node]) -> tuple[gomp.Weak[Node], int | None]:
    node = pointer.value()
    return pointer, None if node is None else node.value


def test_weak_pointers_travel_and_keep_nothing(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node, value=5)
    pointer = gomp.weak(node)
    assert rt.run(follow, pointer) == (pointer, 5)
    received = pickle.loads(pickle.dumps({"weak": pointer, "none": gomp.weak(None)}))
    assert received == {"weak": pointer, "none": gomp.weak(None)}
    assert received["weak"].value() == node
    del node
    rt.gc()
    assert rt.run(follow, pointer) == (pointer, None)


def test_what_stays_in_its_process_says_so(rt: gomp.Runtime, no_leak: None) -> None:
    node = gomp.new(Node)
    with pytest.raises(TypeError, match="a pointer into an object stays in its process: send the object"):
        rt.run(abs, gomp.pointer(node, "value"))
    cleanup = gomp.add_cleanup(node, print, "never")
    with pytest.raises(TypeError, match="a cleanup stays in the process that registered it"):
        rt.run(abs, cleanup)
    cleanup.stop()


def serve_one(address: str) -> int:
    with Client(address) as connection:
        node = connection.recv()
        node.value *= 2
        connection.send(node)
        return int(node.value)


def test_a_pipe_of_multiprocessing_carries_references(rt: gomp.Runtime, no_leak: None, tmp_path: object) -> None:
    address = f"{tmp_path}/pipe"
    with Listener(address) as listener:
        goroutine = rt.go(serve_one, address)
        with listener.accept() as connection:
            node = gomp.new(Node, value=21)
            connection.send(node)
            assert connection.recv() == node
    assert goroutine.wait() == 42
    del goroutine


TYPES = """
import gomp, pickle

@gomp.struct
class Leaf:
    weight: float

@gomp.struct
class Tree:
    leaves: gomp.Array[Leaf]
    twin: "Tree"

def weigh(data):
    return sum(leaf.weight for leaf in pickle.loads(data))

def grow():
    @gomp.struct
    class Fruit:
        colour: int
    return gomp.new(Fruit, colour=7), gomp.array(Fruit, 3)

def plain(data):
    tree = pickle.loads(data)
    tree.twin = tree
    return tree

with gomp.Runtime(procs=1, max_heap="64MiB") as rt:
    leaves = gomp.array(Leaf, 2)
    for i in range(2):
        leaves[i] = gomp.new(Leaf, weight=1.5)
    print(rt.run(eval("lambda data: __import__('pickle').loads(data)[1].weight"), pickle.dumps(leaves)))
    print(rt.run(weigh, pickle.dumps(leaves)))
    tree = rt.run(plain, pickle.dumps(gomp.new(Tree, leaves=leaves)))
    print(type(tree) is Tree, tree.twin == tree, tree.leaves[0].weight)
    fruit, basket = rt.run(grow)
    print(fruit, len(basket))
    basket[0] = fruit
    del fruit, basket
    print(rt.verify())
"""


def test_classes_of_the_script_and_of_a_p_travel_with_the_reference(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TYPES)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["1.5", "3.0", "True True 1.5"]
    assert lines[3].startswith("Fruit(colour=7) @0x")
    assert lines[3].endswith(" 3")


def test_an_ended_runtime_refuses_both_ways() -> None:
    script = (
        "import gomp, pickle\n"
        "with gomp.Runtime(procs=1, max_heap='64MiB'):\n"
        "    kept = gomp.array(int, 3)\n"
        "    data = pickle.dumps(kept)\n"
        "for attempt in (lambda: pickle.dumps(kept), lambda: pickle.loads(data)):\n"
        "    try: attempt()\n"
        "    except gomp.RuntimeLost as error: print(error)\n"
        "with gomp.Runtime(procs=1, max_heap='64MiB'):\n"
        "    try: pickle.loads(data)\n"
        "    except gomp.RuntimeLost as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "no runtime is open" in first
    assert "no runtime is open in this one" in second
    assert "another runtime" in third
