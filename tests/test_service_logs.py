"""The log sink: everything that a P logs arrives, whatever happens to the Ps."""

import json
import logging
import multiprocessing
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp.service import logs


def make_record(message, **state):
    return logging.makeLogRecord({"name": "test", "msg": message, "levelno": 20, "levelname": "INFO", **state})


@pytest.fixture
def ends():
    ours, theirs = logs.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def root(monkeypatch):
    """The root logger, put back as it was afterwards, and so is the name of the process."""
    monkeypatch.setattr(multiprocessing.current_process(), "name", "test")
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@given(st.text(), st.one_of(st.none(), st.text()))
def test_a_record_survives_the_journey(message, exc_text):
    sent = make_record(message, exc_text=exc_text)
    got = logs.decode(logs.encode(sent))
    assert (got.getMessage(), got.exc_text) == (message, exc_text)
    assert (got.created, got.process, got.processName, got.lineno) == (
        sent.created,
        sent.process,
        sent.processName,
        sent.lineno,
    )


@given(st.characters(), st.integers(0, 200_000), st.integers(0, 200_000))
def test_a_record_too_large_for_a_packet_is_cut(character, length, traceback_length):
    packet = logs.encode(make_record(character * length, exc_text=character * traceback_length, name="n" * length))
    assert len(packet) <= logs.MAX_PACKET
    got = logs.decode(packet)
    assert got.msg[:1000] == (character * length)[:1000]
    assert len(got.msg) == length or got.msg.endswith("[cut]")


def test_attaching_starts_no_thread_and_replaces_every_handler(ends, root):
    before = threading.active_count()
    handler = logs.attach(ends[0], "P0")
    assert root.handlers == [handler]
    assert threading.active_count() == before


def test_arguments_and_tracebacks_are_formatted_where_they_are(ends, root):
    logs.attach(ends[0], "P0")
    try:
        1 / 0  # noqa: B018 - it raises
    except ZeroDivisionError:
        root.exception("with %s", threading.Lock())
    got = logs.PacketQueue(ends[1]).get(timeout=5)
    assert got.getMessage().startswith("with <unlocked _thread.lock")
    assert "ZeroDivisionError: division by zero" in got.exc_text
    assert (got.processName, got.process) == ("P0", os.getpid())


def test_a_service_that_does_not_read_costs_a_bounded_wait_and_the_loss_is_told(ends, root, monkeypatch):
    monkeypatch.setattr(logs, "SEND_TIMEOUT_S", 0.05)
    logs.attach(ends[0], "P0")
    packets = logs.PacketQueue(ends[1])
    for n in range(10_000):
        root.error("line %d", n)
        if root.handlers[0].queue.lost >= 2:
            break
    assert root.handlers[0].queue.lost == 2
    received = []
    while True:
        try:
            received.append(packets.get(timeout=0.01).msg)
        except queue.Empty:
            break
    assert received == [f"line {i}" for i in range(n - 1)]
    root.error("on we go")
    assert packets.get(timeout=5).msg == "[2 records lost before this one] on we go"


def test_who_logs_much_waits_once_for_a_service_that_does_not_read(ends, root, monkeypatch):
    monkeypatch.setattr(logs, "SEND_TIMEOUT_S", 0.1)
    logs.attach(ends[0], "P0")
    began, n = time.monotonic(), 0
    while root.handlers[0].queue.lost < 100:
        root.error("line %d", n := n + 1)
    assert time.monotonic() - began < 5


def test_without_a_service_the_p_writes_to_stderr(ends, root, capfd):
    logs.attach(ends[0], "P0")
    root.handlers[0].sub_handler.setStream(sys.stderr)
    ends[1].close()
    root.error("all alone")
    assert "all alone" in capfd.readouterr().err


def test_the_end_of_the_sender_ends_the_receiver(ends, root):
    thread = logs.receive(ends[1])
    ends[0].close()
    thread.join(5)
    assert not thread.is_alive()


# A stand-in for the coordinator: it forks Ps that log, kills one, forks another; the sink is a process of its own, as in the service.
COORDINATOR = """
import logging, os, signal, socket, sys
from gomp.service import logs

LINES = 200

def fork(main, *args):
    pid = os.fork()
    if pid:
        return pid
    try:
        main(*args)
    finally:
        os._exit(0)

def service(control):
    logs.configure("info", "service")
    receivers = logs.Receivers()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 16, 1)
        if not message:
            break
        receivers.add(socket.socket(fileno=fds[0]))
    receivers.drain(5)

def p(name, sock, lines, done):
    logs.attach(sock, name)
    for n in range(lines):
        logging.warning("%s says %d", name, n)
    os.write(done, b"x")
    signal.pause()

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
logging.getLogger().setLevel("INFO")
sink = fork(lambda: (ours.close(), service(theirs)))
theirs.close()
done_r, done_w = os.pipe()

def start(name):
    p_end, service_end = logs.pair()
    socket.send_fds(ours, [b"log"], [service_end.fileno()])
    service_end.close()
    pid = fork(lambda: (ours.close(), p(name, p_end, LINES, done_w)))
    p_end.close()
    return pid

def wait_for(n):
    for _ in range(n):
        os.read(done_r, 1)

first, second = start("first"), start("second")
wait_for(2)
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
third = start("third")
wait_for(1)
for pid in (second, third):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
ours.close()
_, status = os.waitpid(sink, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_killed_and_forked_again_the_ps_lose_no_line():
    done = subprocess.run([sys.executable, "-c", COORDINATOR], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert sorted(said) == sorted(f"{name} says {n}" for name in ("first", "second", "third") for n in range(200))


def test_a_p_killed_while_it_logs_leaves_whole_lines(ends):
    """Packets are whole or absent: what arrives from a P that is killed at any moment can be read."""
    pid = os.fork()
    if pid == 0:
        try:
            ends[1].close()
            logs.attach(ends[0], "P0")
            while True:
                logging.getLogger("victim").warning("x" * 10_000)
        finally:
            os._exit(1)
    ends[0].close()
    for _ in range(20):
        ends[1].recv(logs.MAX_PACKET * 2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ends[1].settimeout(5)
    while packet := ends[1].recv(logs.MAX_PACKET * 2):
        assert json.loads(packet)["msg"] == "x" * 10_000


def test_a_pair_keeps_packets_apart(ends):
    assert {end.type for end in ends} == {socket.SOCK_SEQPACKET}
