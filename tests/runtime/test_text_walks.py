"""``for c in text`` in compiled code."""

from __future__ import annotations

import pytest

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import NilDereference
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
