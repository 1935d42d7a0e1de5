"""Options from every source, of every type and any size: one line that names what is wrong, or settings that can be used."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp import config
from gomp.cli.running import parse_parameters
from gomp.config import GC_OFF, MAX_GOGC, MAX_PROCS, NO_LIMIT, RuntimeSettings, ServiceSettings, load
from gomp.core.shm.layout import ARENA_SIZE, HEAP_MAX
from gomp.errors import ConfigError

MOST_TEXT = 1500  # characters of a complaint
OPTIONS = sorted(ServiceSettings.model_fields)
GO_VARIABLES = ("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG")
KIB = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

few = settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=1000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))


# --- what somebody may write --------------------------------------------------------------------------------------------

small = st.integers(-3, 200)
numbers = small | st.integers(-(1 << 70), 1 << 70) | st.sampled_from([1 << 31, 1 << 63])
byte_counts = st.builds("{}{}".format, numbers, st.sampled_from([*KIB, "KB", " MiB"]))
words = st.sampled_from(["off", "auto", "unix", "tcp", "all", "debug", "nan", "inf", "true", "null", "mixed", ""])
long_texts = st.sampled_from(["9" * 5000, "a" * 5000, "0" * 5000 + "7", "[" * 5000, '{"a":' * 1000])
texts = words | byte_counts | numbers.map(str) | st.floats().map(str) | st.text(max_size=40) | long_texts


def quoted(text: str) -> str:
    """As TOML has it."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08X}" for c in text) + '"'


toml_scalars = st.one_of(
    numbers.map(str),
    st.floats().map(repr),
    texts.map(quoted),
    st.sampled_from(["true", "false", "0x" + "f" * 5000, "1e999", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z"]),
)
toml_keys = st.sampled_from(["program", "parameters", "everywhere", "rate", "live", "sizes", "64"]) | st.text(
    max_size=9
)


def array(values: list[str]) -> str:
    return f"[{', '.join(values)}]"


def table(fields: dict[str, str]) -> str:
    return f"{{{', '.join(f'{quoted(name)} = {value}' for name, value in fields.items())}}}"


toml_values = st.recursive(
    toml_scalars,
    lambda part: st.lists(part, max_size=3).map(array) | st.dictionaries(toml_keys, part, max_size=4).map(table),
    max_leaves=8,
)
mixed = st.dictionaries(st.sampled_from(["rate", "live", "sizes", "stdlib_trees"]), toml_values, min_size=1).map(
    lambda fields: array([table({"program": '"mixed"', "parameters": table(fields)})])
)


# --- what is made of it -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GOMP_") or name in GO_VARIABLES:
            monkeypatch.delenv(name)


def is_settled(read: Callable[[], RuntimeSettings], named: str) -> bool:
    """Whether it can be used; if not, a line says so that has ``named`` in it."""
    try:
        found = read()
    except ConfigError as error:
        text = str(error)
        assert text.splitlines() == [text]
        assert re.search(named, text)
        assert len(text) < MOST_TEXT
        return False
    assert 1 <= found.procs <= found.most_procs <= MAX_PROCS
    assert 0 <= found.max_attached <= MAX_PROCS - 2
    assert GC_OFF <= found.gogc <= MAX_GOGC
    assert found.memory_limit == config.AUTO or 0 <= found.memory_limit <= NO_LIMIT
    assert 0 < found.memory_limit_share <= 1
    assert ARENA_SIZE <= found.max_heap <= HEAP_MAX
    assert found.max_heap % ARENA_SIZE == 0
    assert 0.1 <= found.stop_deadline <= 60
    assert all(len(sentence) < MOST_TEXT for sentence in config.ignored(found))
    return True


def load_file(text: bytes) -> ServiceSettings:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(text)
        file.flush()
        return load(ServiceSettings, Path(file.name))


def load_from(environment: Mapping[str, str]) -> ServiceSettings:
    with mock.patch.dict(os.environ, environment):
        return load(ServiceSettings)


def named_by(variable: str) -> str:
    """What stands in a complaint about it."""
    option = variable.removeprefix("GOMP_").lower()
    return (
        f'^({ {"gomaxprocs": "procs", "gomemlimit": "malformed GOMEMLIMIT"}.get(option, option) }|.*field "{option}")'
    )


def try_option_of_a_file(name: str, value: str) -> None:
    is_settled(lambda: load_file(f"{name} = {value}\n".encode()), rf"^{name}\b|TOML|nested too deeply")


def try_variable(name: str, data: bytes) -> None:
    text = os.fsdecode(data.replace(b"\0", b""))
    with mock.patch.dict(os.environ, {name: text}):
        is_settled(lambda: load(ServiceSettings), named_by(name))


def try_flag(name: str, text: str) -> None:
    is_settled(lambda: load(ServiceSettings, **{name: text}), rf"^{name}\b")


def try_file(text: bytes) -> None:
    is_settled(lambda: load_file(text), r"^('.*'|[^:]+): |is not valid TOML")


def fits_a_variable(text: str) -> bool:
    """Others the system refuses."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def try_go_grammars(text: str) -> None:
    assert config.parse_gogc(text) == go_gogc(text)
    assert config.parse_byte_count(text) == go_byte_count(text)
    refused = text and go_byte_count(text) is None and text not in ("off", "auto")
    assert is_settled(lambda: load_from({"GOMEMLIMIT": text}), "^malformed GOMEMLIMIT=") == (not refused)


def go_integer(text: str, bits: int) -> int | None:
    """strconv.ParseInt, in base 10."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or not set(digits) <= set("0123456789"):
        return None
    n = int(digits.lstrip("0")[:30] or "0") * (-1 if text[0] == "-" else 1)
    return n if -(1 << bits - 1) <= n < 1 << bits - 1 else None


def go_gogc(text: str) -> int:
    n = go_integer(text, 32)
    return -1 if text == "off" else 100 if n is None else max(n, -1)


def go_byte_count(text: str) -> int | None:
    """runtime.parseByteCount: what stands before a unit is looked at when that is known."""
    unit = next((unit for unit in sorted(KIB, key=len, reverse=True) if text.endswith(unit)), "")
    n = go_integer(text.removesuffix(unit), 64)
    return n * KIB[unit] if n is not None and n >= 0 and n * KIB[unit] < 1 << 63 else None


# --- each source, a little by default and long with --run-slow ---------------------------------------------------------

options = st.sampled_from(OPTIONS)
variables = st.sampled_from([f"GOMP_{name.upper()}" for name in OPTIONS] + list(GO_VARIABLES))
bytes_of_a_variable = texts.map(lambda text: text.encode(errors="ignore")) | st.binary(max_size=30)
lines = st.builds("{} = {}".format, options | toml_keys.map(quoted), toml_values)
files = st.lists(lines, max_size=5).map(lambda found: "\n".join(found).encode()) | st.binary(max_size=200)
go_texts = byte_counts | texts.filter(fits_a_variable) | st.text("+-0123456789KMGTiB_ ", max_size=12)

TRIED: dict[str, tuple[Callable[..., None], list[st.SearchStrategy[Any]]]] = {
    "an option of a file": (try_option_of_a_file, [options, toml_values]),
    "the parameters of mixed": (try_option_of_a_file, [st.just("programs"), mixed]),
    "a variable": (try_variable, [variables, bytes_of_a_variable]),
    "a flag": (try_flag, [options, texts]),
    "a whole file": (try_file, [files]),
    "what Go reads": (try_go_grammars, [go_texts]),
}


@pytest.mark.parametrize("what", TRIED)
def test_whatever_is_written_is_settled(what: str) -> None:
    tries, drawn = TRIED[what]
    few(given(*drawn)(tries))()


@pytest.mark.slow
@pytest.mark.parametrize("what", TRIED)
def test_whatever_is_written_is_settled_at_length(what: str) -> None:
    tries, drawn = TRIED[what]
    many(given(*drawn)(tries))()


@given(st.lists(st.text("live=[]{}():-'\"0123456789.eEjx, ", max_size=30) | long_texts.map("x={}".format), max_size=3))
@few
def test_parameters_of_a_program(words: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        assert all(name.isidentifier() for name in parse_parameters(words))
