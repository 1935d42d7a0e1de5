"""Processes that attach to a runtime, do what they are told, and go (see ``forked_children``)."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import gomp
from gomp.runtime import current, discovery, handles, joined, mapping, peer
from gomp.runtime.attach import Attached
from tests import share_load
from tests.interrupting import interrupted


@gomp.struct
class Item:
    number: int
    next: Item


Numbers = gomp.Chan[int]  # declared here, to be met below a name


@gomp.compiled
def chain(n: int) -> Item:
    head: Item = None
    for i in range(n):
        head = gomp.new(Item, number=i, next=head)
    return head


@gomp.compiled
def spin(n: int) -> int:
    total = 0
    for i in range(n):
        total += i % 7
    return total


@gomp.compiled
def receive(ch: Numbers) -> int:
    return ch.recv()


def say(*what: object) -> None:
    print(*what, flush=True)


def use(rt: Attached) -> None:
    """Take part in everything: what is there is changed, and a channel says how that went."""
    shared = gomp.globals["shared"]
    shared["from attached"] = gomp.new(Item, number=shared["from owner"].number + 1)
    gomp.globals["chain"] = chain(1000)
    gomp.globals["numbers"][3] = 33
    asked = gomp.globals["asked"]
    asked.send(rt.run(os.getpid))
    rt.gc()
    say(gomp.globals["answered"].recv(timeout=20), rt.verify().split()[0])


def stay(rt: Attached) -> None:
    """Be attached, and make objects, until something ends that."""
    say("here")
    while True:
        chain(1000)


def wait(rt: Attached) -> None:
    say("here")
    gomp.globals["never"].recv()


def hang_up(rt: Attached) -> None:
    """Without a word, and go on."""
    peer: Any = rt._peer
    say("here")
    os.close(peer.mailbox.channel.fileno())
    while True:
        chain(1000)


def talk_nonsense(rt: Attached) -> None:
    """And wait for what never comes."""
    peer: Any = rt._peer
    say("here")
    peer.mailbox.channel.sock.send(b"\xff" * 64)
    Numbers(0).recv()


def become_another(rt: Attached) -> None:
    say("here")
    os.execvp("sleep", ["sleep", "60"])


def stop_inside(rt: Attached) -> None:
    """Be stopped in the middle of compiled code."""
    say("here")
    gomp.globals["stopping"] = chain(1)
    while True:
        chain(100_000)


def look_on(rt: Attached) -> None:
    ones = gomp.ndarray(3)
    ones[:] = 1
    before = str(ones)
    rt.close()
    say(before, ones)


def lose(rt: Attached) -> None:
    """Be there when the runtime ends."""
    say("here")
    try:
        gomp.Chan[int]().recv()
    except gomp.RuntimeLost as lost:
        say(lost)


def have_made(rt: Attached) -> None:
    """Have chains made, and wait for none of them."""
    made = [rt.go(chain, 1000) for _ in range(10)]
    say("here")
    while len(made) == 10:
        time.sleep(1)


def execute(rt: Attached) -> None:
    """Have an executor's tasks done, and leave while one is not."""
    with gomp.Executor(rt) as executor:
        chains = executor.map(lengthened, [chain(n) for n in range(1, 21)])
        say(sum(made.number for made in chains))
    left = gomp.Executor(rt).submit(lengthened, chain(1), 0.5)
    while not left.running():
        time.sleep(0.001)
    rt.close()
    try:
        left.result(20)
    except gomp.RuntimeLost as lost:
        say(lost)


def lengthened(item: Item, after_s: float = 0.0) -> Item:
    time.sleep(after_s)
    return gomp.new(Item, number=item.number + 1, next=item)


def have_made_and_leave(rt: Attached) -> None:
    for _ in range(10):
        rt.go(chain, 1000)
    time.sleep(0.2)


def outlive(rt: Attached) -> None:
    """Go on when the runtime has ended: by machine code, and by what enters none that could wait."""
    say("here")
    lost = set()
    for use in (
        gomp.num_goroutine,
        lambda: spin(1 << 60),
        lambda: gomp.new(Item, number=1),
        lambda: gomp.array(int, 1),
    ):
        try:
            while True:
                use()
        except gomp.RuntimeLost as error:
            lost.add(str(error))
    say(*lost)


def leave(rt: Attached) -> None:
    kept = chain(10)
    rt.close()
    try:
        say(kept.number)
    except gomp.RuntimeLost:
        try:
            rt.gc()
        except gomp.RuntimeLost as lost:
            say(f"RuntimeLost: {lost}")


def exit_without_a_word(rt: Attached) -> None:
    """The interpreter's end leaves."""
    globals()["kept"] = chain(10)


def in_a_thread_of_asyncio(name: str) -> None:
    async def main() -> list[int]:
        rt = await asyncio.to_thread(gomp.attach, name)
        ch = gomp.Chan[int](1)
        await ch.sending(7)
        ch.close()
        got = [number async for number in ch]
        await asyncio.to_thread(rt.close)
        return got

    say(asyncio.run(main()))


def again(name: str, times: str) -> None:
    """Attach and leave, many times; of the ms that attaching took, the fewest."""
    took = []
    for i in range(int(times)):
        begun = time.perf_counter()
        with gomp.attach(name, timeout=20):
            took.append(1000 * (time.perf_counter() - begun))
            assert gomp.new(Item, number=i).number == i
    say(min(took))


def interrupted_twice(name: str) -> None:
    """While it comes, and while it lets go again of what it has mapped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    joined.tell_if_tracing = interrupt  # what comes after it has begun to take part
    joined.Joined._let_go = interrupt  # type: ignore[method-assign]
    try:
        gomp.attach(name)
    except KeyboardInterrupt:
        say("here")
    time.sleep(60)


def killed(name: str, times: str) -> None:
    """Children attach, make objects, have waits and parcels under way, and are killed at any moment, many times."""
    pauses = random.Random(int(times))
    for _ in range(int(times)):
        pid = os.fork()
        if pid == 0:
            _be_killed(gomp.attach(name, timeout=20))
        time.sleep(pauses.choice((0.0, 0.002, 0.01)) + pauses.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    say("done")


def _be_killed(rt: Attached) -> None:
    kept = {}
    gomp.go(_wait_for_ever())
    for i in itertools.count():
        kept[i % 100] = chain(200)
        gomp.globals["shared"][f"key {i % 50}"] = gomp.new(Item, number=i)
        rt.go(_gives, kept[i % 100])


async def _wait_for_ever() -> None:
    await gomp.globals["never"].receiving()


def _gives(item: Item) -> Item:
    """A chain as long as that which it is given: its result is a parcel, as its argument is."""
    assert item.next
    return chain(200)


def interrupted_coming(name: str) -> None:
    """By Ctrl-C, at some of the places at which Python looks for it."""
    gomp.attach(name, timeout=20).close()  # what is done once was done
    for place in itertools.count(1, 61):
        if not interrupted(lambda: gomp.attach(name, timeout=20), place):
            break
        _check_that_all_is_over()
    say("here")


def interrupted_going(name: str) -> None:
    for place in itertools.count(1, 7):
        rt = gomp.attach(name, timeout=20)
        gomp.new(Item, number=1)
        if not interrupted(rt.close, place):
            break
        rt.close()  # if it was too soon
        _check_that_all_is_over()
    say("here")


def _check_that_all_is_over() -> None:
    assert not current.is_open()
    assert "gomp-" not in Path("/proc/self/maps").read_text()


def close_on_a_waiting_program(name: str) -> None:
    """Threads wait, in machine code and in Python, and see late that this is over: then it is not their runtime that is open."""
    awake, on_time = threading.Event(), peer.shut_down_if_orphaned

    def late() -> None:
        awake.set()
        time.sleep(0.05)
        on_time()

    vars(peer)["shut_down_if_orphaned"] = late
    rt = gomp.attach(name, timeout=20)
    ch, ended = Numbers(), []
    waits = (lambda: receive(ch), ch.recv, lambda: gomp.select(ch.receiving()))

    def wait_in(wait: Any) -> None:
        try:
            wait()
        except gomp.GompError as error:
            ended.append(type(error).__name__)

    threads = [threading.Thread(target=wait_in, args=(wait,)) for wait in waits]
    for thread in threads:
        thread.start()
    while gomp.num_goroutine() < len(waits):
        time.sleep(0.001)
    awake.clear()
    awake.wait(20)
    rt.close()
    with gomp.attach(name, timeout=20):
        for thread in threads:
            thread.join(20)
    say(*ended)


def use_too_soon(name: str) -> None:
    """Another thread runs while what is to be known of a runtime is looked up."""
    errors: set[str] = set()

    def use() -> None:
        try:
            gomp.new(Item, number=1)
        except gomp.RuntimeLost as error:
            errors.add(str(error))

    def run() -> None:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    handles._on_open.insert(0, run)
    with gomp.attach(name, timeout=20):
        say(*errors)


def from_two_threads(name: str) -> None:
    """Both find that this process is in no runtime, and then come."""
    errors, both, choose = [], threading.Barrier(2), discovery.choose

    def choose_together(name: str | None) -> discovery.RuntimeInfo:
        both.wait(20)
        return choose(name)

    def come() -> None:
        try:
            gomp.attach(name, timeout=20)
        except gomp.RuntimeLost as error:
            errors.append(str(error))

    vars(discovery)["choose"] = choose_together
    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chain(1000).number == 999
    say(*errors)


def fork_while_a_thread_waits(name: str) -> None:
    statuses = []
    with gomp.attach(name, timeout=20):
        ch = Numbers()
        waiter = threading.Thread(target=lambda: (ch.recv(), None))
        waiter.start()
        while not mapping._sleepers:
            time.sleep(0.001)
        for _ in range(3):
            if (pid := os.fork()) == 0:
                for _ in range(2):
                    gomp.attach(name, timeout=20).close()
                os._exit(0)
            statuses.append(os.waitpid(pid, 0)[1])
        ch.send(1)
        waiter.join()
    say(*statuses)


def wait_for(name: str, timeout: str) -> None:
    with gomp.attach(name, timeout=float(timeout)):
        say("here")


def wait_for_numpy(name: str, timeout: str) -> None:
    with gomp.attach(name, timeout=np.float32(timeout)):
        say("here")


def fork_and_show(rt: Attached) -> None:
    pid = os.fork()
    if pid == 0:
        say(repr(rt))
        os._exit(0)
    os.waitpid(pid, 0)
    say(repr(rt))


def share(name: str, owner: str, seconds: str) -> None:
    with gomp.attach(name, timeout=20):
        say(share_load.share(int(owner), float(seconds))[0])


def refused(name: str) -> None:
    try:
        gomp.attach(name)
    except gomp.GompError as error:
        say(f"{type(error).__name__}: {error}")


def of_another_build(name: str) -> None:
    from gomp.runtime import attach

    vars(attach)["cache_key"] = lambda: "another"
    vars(attach)["_load_kernels"] = lambda: say("kernels are loaded")
    refused(name)


def of_another_build_that_is_not_described(name: str) -> None:
    chosen = dataclasses.replace(discovery.choose(name), build="")
    vars(discovery)["choose"] = lambda name: chosen
    of_another_build(name)


WITHOUT = {
    f.__name__: f for f in (
        in_a_thread_of_asyncio, again, killed, interrupted_coming, interrupted_twice, interrupted_going, close_on_a_waiting_program,
        use_too_soon, from_two_threads, fork_while_a_thread_waits, wait_for, wait_for_numpy, share, refused, of_another_build,
        of_another_build_that_is_not_described,
    )
}  # fmt: skip
WITH = {
    f.__name__: f
    for f in (
        have_made,
        have_made_and_leave,
        execute,
        use,
        stay,
        wait,
        hang_up,
        talk_nonsense,
        become_another,
        stop_inside,
        look_on,
        lose,
        outlive,
        leave,
        exit_without_a_word,
        fork_and_show,
    )
}


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, what, *rest = arguments
    if what in WITHOUT:
        WITHOUT[what](name, *rest)
    elif what == "exit_without_a_word":
        WITH[what](gomp.attach(name))
    else:
        with gomp.attach(name) as rt:
            WITH[what](rt)
