"""Texts in compiled code: walked, and made."""

from __future__ import annotations

import time

import numpy as np
import pytest

import gomp
from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import CompileError, NilDereference
from gomp.runtime.compiled import compiled
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Bytes, Str, bytes_, str_
from gomp.runtime.verify import verify


@struct
class Node:
    value: int
    next: Node


@compiled
def code_points(text: Str) -> int:
    result, i = 0, 1
    for character in text:
        result += i * ord(character)
        i += 1
    return result


@compiled
def octets(data: Bytes) -> int:
    result, i = 0, 1
    for byte in data:
        result += i * byte
        i += 1
    return result


@pytest.mark.parametrize(
    "text", ["", "a", "seven77", "a café", "日本語", "mixed é 日 \U0001f600", "\ud800", "x" * 5000]
)
def test_characters_and_bytes(heap, text):
    data = text.encode("utf-8", "surrogatepass")
    assert code_points(str_(text)) == sum(i * ord(c) for i, c in enumerate(text, 1))
    assert octets(bytes_(data)) == sum(i * b for i, b in enumerate(data, 1))


def test_none_is_no_text(heap):
    for use in (code_points, octets):
        with pytest.raises(NilDereference, match="a text that is None"):
            use(None)


def test_what_only_a_walk_holds_survives_collections(collected_heap):
    @compiled
    def walk(text: Str, garbage: int) -> int:
        result = 0
        for character in text:
            for _ in range(garbage):
                new(Node, -1)
            result += ord(character)
        return result

    before = int(view(gcstats_dtype, GCSTATS)[0].num_gc)
    assert walk(str_("aé日" * 100), 1000) == 100 * sum(map(ord, "aé日"))
    assert int(view(gcstats_dtype, GCSTATS)[0].num_gc) > before
    assert verify(3).problems == ()


# --- made in compiled code --------------------------------------------------------------------------------------------

TEXTS = ("", "a", "a café", "日本語", "\ud800", "\u07ff\u0800\uffff\U00010000\U0010ffff", "\x7f\x80")


def test_a_text_that_a_program_makes_is_as_python_makes_it(heap):
    @compiled
    def make(which: int, times: int) -> Str:
        return gomp.str(TEXTS[which] * times)

    @compiled
    def copy(text: Str) -> Str:
        return gomp.str(text)

    for which, text in enumerate(TEXTS):
        for times in (1, 4000):
            made, wanted = make(which, times), gomp.str(text * times)
            assert made == wanted == text * times
            assert (len(made), made.nbytes) == (len(wanted), wanted.nbytes)
            assert copy(made) == made
            assert copy(made).address != made.address
    assert verify(3).problems == ()


def test_bytes_of_bytes_and_of_arrays(heap):
    @compiled
    def constant() -> Bytes:
        return gomp.bytes(b"\x00\xff seven")

    @compiled
    def of(data) -> Bytes:
        return gomp.bytes(data)

    array = gomp.ndarray(10_000, np.uint8)
    array[:] = np.arange(10_000)
    assert constant() == of(constant()) == b"\x00\xff seven"
    assert of(array) == of(of(array)) == array.tobytes()


def test_texts_are_keys_of_maps_while_another_process_collects(collected_heap):
    @compiled
    def count(n: int) -> int:
        found = gomp.map(str, Node)
        for i in range(n):
            found[gomp.str("key" + str(i))] = new(Node, i)
        total = 0
        for i in range(n):
            total += found[gomp.str("key" + str(i))].value
        return total

    before, deadline = int(view(gcstats_dtype, GCSTATS)[0].num_gc), time.monotonic() + 30
    while view(gcstats_dtype, GCSTATS)[0].num_gc == before:  # the other process has to get a processor
        assert count(40_000) == sum(range(40_000))
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda n: gomp.str(n), r"gomp.str makes a text of a str, not int64: .* str\(\)"),
        (lambda n: gomp.bytes("text"), "gomp.bytes makes bytes of bytes or of an array of uint8, not"),
    ],
)
def test_what_no_text_is_made_of(heap, body, message):
    with pytest.raises(CompileError, match=message):
        compiled(body)(3)
