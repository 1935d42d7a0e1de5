"""``gomp.bytes`` and ``gomp.str``: what goes in comes out, without a copy if wanted, and the object lives as long as anything sees it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_heap import collect_now

from gomp.core.shm.records import GCSTATS, gcstats_dtype, view
from gomp.errors import RuntimeLost
from gomp.runtime import mapping
from gomp.runtime.handles import table
from gomp.runtime.references import address_of
from gomp.runtime.root_table import globals as roots
from gomp.runtime.structs import new, struct
from gomp.runtime.texts import Bytes, Str, bytes_, str_
from gomp.runtime.verify import verify

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@struct
class Person:
    name: Str
    key: Bytes


def live_objects():
    collect_now()
    return int(view(gcstats_dtype, GCSTATS)[0].heap2)


@given(st.binary(max_size=200))
@PROPERTY
def test_bytes_come_out_as_they_went_in(heap, data):
    made = bytes_(data)
    assert bytes(made) == bytes(made.view()) == data
    assert (len(made), made.nbytes, list(made)) == (len(data), len(data), list(data))
    assert made == data
    assert made == bytes_(bytearray(data))
    assert hash(made) == hash(data)
    assert made != data + b"x"
    assert [made[i] for i in range(len(data))] == list(data)
    assert made[1:] == data[1:]
    assert bool(made) == bool(data)


@given(st.text(st.characters(), max_size=100))
@PROPERTY
def test_text_comes_out_as_it_went_in(heap, text):
    made = str_(text)
    assert str(made) == text
    assert bytes(made) == text.encode("utf-8", "surrogatepass")
    assert (len(made), list(made)) == (len(text), list(text))
    assert made == text
    assert made == str_(text)
    assert hash(made) == hash(text)
    assert made != text + "x"
    assert [made[i] for i in range(len(text))] == list(text)
    assert made[1:3] == text[1:3]
    assert bool(made) == bool(text)


def test_they_are_field_types(heap):
    person = new(Person, name=str_("Ada"), key=bytes_(b"\x00\x01"))
    collect_now()
    assert person.name == "Ada"
    assert person.key == b"\x00\x01"
    assert repr(person) == f"Person(name='Ada', key=b'\\x00\\x01') @{address_of(person):#x}"
    assert repr(str_("é" * 100)).startswith(f"Str('{'é' * 60}'… 100 characters) @0xc")
    with pytest.raises(TypeError, match="field name of Person holds a Str or None, not str 'Ada'"):
        person.name = "Ada"
    with pytest.raises(TypeError, match="field name of Person holds a Str or None, not Bytes"):
        person.name = person.key
    roots["name"] = person.name
    assert roots["name"] == "Ada"


def test_equality_is_that_of_contents_and_never_across_kinds(heap):
    assert str_("a") != bytes_(b"a")
    assert str_("a") != b"a"
    assert bytes_(b"a") != "a"
    assert {str_("a"): 1}["a"] == 1
    assert "b" in str_("abc")
    assert 98 in bytes_(b"abc")


def test_a_view_keeps_the_object_and_not_a_copy(heap):
    base = live_objects()
    seen = bytes_(b"seen" * 1000).view()
    for _ in range(3):
        collect_now()
        for _ in range(100):
            bytes_(b"other" * 800)
    assert bytes(seen) == b"seen" * 1000
    assert seen.readonly
    part = np.frombuffer(seen, dtype=np.uint8)[4:8]
    del seen
    collect_now()
    assert part.tobytes() == b"seen"
    assert live_objects() > base
    del part
    gc.collect()
    assert live_objects() == base
    assert verify(3).problems == ()


def test_the_mapping_waits_for_views(heap):
    lookers = len(mapping._views)
    seen = bytes_(b"x").view()
    assert len(mapping._views) == lookers + 1
    del seen
    assert len(mapping._views) == lookers
    assert bytes(bytes_(b"").view()) == b""


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bytes_("text"), TypeError, "gomp.bytes holds bytes, or what has a buffer of them, not str 'text'"),
        (lambda: bytes_(5), TypeError, "gomp.bytes holds bytes, .*, not int 5"),
        (lambda: str_(b"x"), TypeError, "gomp.str holds a str, not bytes b'x'"),
        (lambda: str_(None), TypeError, "gomp.str holds a str, not None"),
        (lambda: Str("x"), TypeError, r"made with gomp.str\(...\)"),
        (lambda: str_("abc")[3], IndexError, "index 3 of a Str of 3: indices count from 0"),
        (lambda: bytes_(b"abc")[-1], IndexError, "index -1 of a Bytes of 3"),
        (lambda: bytes_(b"abc").__setitem__(0, 1), AttributeError, "__setitem__"),
        (
            lambda: bytes_(bytes(1 << 27)),
            MemoryError,
            "so long a Bytes takes 134,217,736 bytes, and the heap has .*: choose a larger max_heap",
        ),
    ],
)
def test_what_they_refuse(heap, make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_buffers_of_any_shape_are_copied(heap):
    numbers = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert bytes_(numbers) == numbers.tobytes()
    assert bytes_(numbers[:, ::2]) == numbers[:, ::2].tobytes()
    assert bytes_(bytes_(b"again")) == b"again"
    assert str_(str_("again")) == "again"


def test_they_outlive_their_runtime_harmlessly(heap):
    text, data = str_("x"), bytes_(b"x")
    table.close()
    for use in (lambda: str(text), lambda: len(data), lambda: data.view(), lambda: text == "x", lambda: str_("y")):
        with pytest.raises(RuntimeLost):
            use()
    assert repr(text) == "<Str of an ended runtime>"
