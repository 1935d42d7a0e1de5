"""Every option, described once: its name, type, default and help. The command line, the environment and the TOML file derive from it.

Precedence, highest first:

1. flags (keyword arguments),
2. the environment: ``GOMP_<OPTION>``, then Go's own GOGC, GOMEMLIMIT, GOMAXPROCS and GODEBUG,
3. the TOML file, where an option's name is its key,
4. the defaults here.

Go's variables mean what they mean in Go: an empty one is not there, a GOGC that is no number is 100, a GOMAXPROCS that is no number is
ignored, a malformed GOMEMLIMIT is fatal, and in GODEBUG what is unknown is ignored and the last of two equal names wins. An option given in
any other way has to be right: whatever is not becomes a :class:`~gomp.errors.ConfigError` of one line.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from gomp.cgroup import CpuCgroup
from gomp.errors import ConfigError

NO_LIMIT = (1 << 63) - 1  # as gomp.core.gc.goal has it, which is not imported here: the compiler would come with it
ENDLESS = (
    1 << 62
)  # a goal from here on is none: without GOGC and limit the pacer's, as Go's, is 3 percent below NO_LIMIT
AUTO = -1  # a memory limit that follows the cgroup's
DEFAULT_PROCS = 0  # a number of Ps that follows the processors there are
GC_OFF = -1
MAX_PROCS = 128  # half of the P records: the others are for attached processes
MAX_GOGC = (1 << 31) - 1
OLDEST_KERNEL = (5, 4)  # the first with pidfds that can be waited for

_DIGITS = 19  # of NO_LIMIT
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_BYTE_UNITS = {"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_BYTE_COUNT = re.compile(r"([+-]?[0-9]+)(B|KiB|MiB|GiB|TiB|)", re.ASCII)
_BYTES_HELP = "a whole number of bytes with an optional B, KiB, MiB, GiB or TiB"
_LIMIT_HELP = f"{_BYTES_HELP}, as 512MiB, or auto, or off"
_BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}  # of an option, in words
_PLAIN = re.compile(r"[\w\[\]-]+")  # a part of an option's name, as it may stand in a line
_MOST_SHOWN = 60  # characters of what was given
_MOST_PROBLEMS = 5  # that one line tells
_TOO_DEEP = "lists and tables are nested too deeply: write fewer in one another"


# --- Go's grammars ----------------------------------------------------------------------------------------------------


def _parse_integer(text: str) -> int | None:
    """``text`` as a number; None also if it is beyond 63 bits by its length: Python refuses to read thousands of digits."""
    match = _INTEGER.fullmatch(text)
    if not match or len(match[2]) > _DIGITS:
        return None
    return int(match[1] + match[2])


def parse_int32(text: str) -> int | None:
    """``text`` as Go's runtime reads a number of 32 bits, or None."""
    n = _parse_integer(text)
    return n if n is not None and -(1 << 31) <= n < 1 << 31 else None


def parse_byte_count(text: str) -> int | None:
    """``text`` as Go reads GOMEMLIMIT: ``1048576``, ``64B``, ``512MiB``; None if malformed or beyond 63 bits."""
    match = _BYTE_COUNT.fullmatch(text)
    if not match or (number := _parse_integer(match[1])) is None:
        return None
    n = number << _BYTE_UNITS[match[2]]
    return n if 0 <= n <= NO_LIMIT else None


def parse_gogc(text: str) -> int:
    """The environment's GOGC: what Go cannot read is 100."""
    if text == "off":
        return GC_OFF
    percent = parse_int32(text)
    return 100 if percent is None else max(percent, GC_OFF)


@dataclass(frozen=True)
class Debug:
    """The switches of GODEBUG: Go's names and, for those Go does not have, ours."""

    gctrace: int = 0  # 1: a line on stderr for each cycle
    gcpacertrace: int = 0  # 1: lines on stderr for what the pacer decides
    madvdontneed: int = 1  # 0: memory that is returned stays until somebody needs it
    scavtrace: int = 0  # 1: a line on stderr after each sweep, for what has gone back to the system
    scavengeoff: int = 0  # 1: only what somebody asks for is returned to the system, and what a memory limit enforces
    gcstoptheworld: int = 0  # 1: the world is stopped while marking, 2: and while sweeping
    gccheckmark: int = 0  # 1: when marking ends, a trace of its own checks that nothing reachable was missed
    checkfinalizers: int = 0  # 1: after each cycle, which objects with a finalizer lead back to themselves
    clobberfree: int = 0  # 1: freed memory is filled with 0xdeadbeef
    gcshrinkstackoff: int = 0  # 1: goroutine stacks are never made smaller
    adaptivestackstart: int = 1  # 0: goroutine stacks begin with 2 KiB, however large others have become
    stackcopyalways: int = 0  # 1: goroutine stacks move at every call
    gccollectevery: int = 0  # k: a collection at every k-th slow allocation
    memprofilerate: int = 512 << 10  # an object is sampled for each so many bytes that are allocated; 0: none, 1: all
    flightrecorder: int = (
        0  # 1: each P tells in its ring what it does, as for a trace; a crash report has its last events
    )
    verify: int = 0  # 1..3: the heap is verified at this level after each cycle


def parse_godebug(text: str) -> Debug:
    """``name=value,...``: unknown names and values that are no numbers are ignored, as in Go; the last of two equal names wins."""
    return Debug(**{name: n for name, _, n in _switches(text) if n is not None})


def _switches(text: str) -> Iterator[tuple[str, str, int | None]]:
    """Of each item its name, its value, and that as a number if the switch is one of ours and takes it."""
    known = {field.name for field in fields(Debug)}
    for item in text.split(","):
        name, _, value = item.partition("=")
        yield name, value, parse_int32(value) if name in known else None


# --- types of options -------------------------------------------------------------------------------------------------


def _whole(value: object) -> object:
    """What would become a number as that number, so that it is in the range as the number that it becomes."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _gogc(value: object) -> object:
    value = _whole(value)
    if isinstance(value, str):
        percent = GC_OFF if value == "off" else parse_int32(value)
        if percent is None:
            raise ValueError('write a whole percentage, or "off"')
        value = percent
    if isinstance(value, int) and value > MAX_GOGC:
        raise ValueError(f"a percentage is {MAX_GOGC} at most")
    return max(value, GC_OFF) if isinstance(value, int) else value


def _procs(value: object) -> object:
    """While it runs "auto" is a number too."""
    if isinstance(value, str):
        if value != "auto":
            raise ValueError('write a number of Ps, or "auto"')
        return DEFAULT_PROCS
    if isinstance(value, int) and value <= DEFAULT_PROCS:
        raise ValueError("there is 1 P at least")
    if isinstance(value, int) and value > MAX_PROCS:
        raise ValueError(f"no runtime has more than {MAX_PROCS} Ps")
    return value


def _byte_count(value: object) -> object:
    if isinstance(value, str):
        value = parse_byte_count(value)
        if value is None:
            raise ValueError(f"write {_BYTES_HELP}, as 512MiB")
    return _whole(value)


def _limit(value: object) -> object:
    if value == "auto":
        return AUTO
    if value is None or value == "off":
        return NO_LIMIT
    limit = parse_byte_count(value) if isinstance(value, str) else _whole(value)
    if limit is None or (isinstance(limit, int) and not 0 <= limit <= NO_LIMIT):
        raise ValueError(f"write {_LIMIT_HELP}")
    return limit


def _show_limit(value: int) -> int | str:
    return "auto" if value == AUTO else value


def _path(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("no file's name has a zero byte")
    return value


def _whole_arenas(value: object) -> object:
    from gomp.core.shm.layout import ARENA_SIZE, HEAP_MAX

    size = _byte_count(value)
    if not isinstance(size, int):
        return size
    if not ARENA_SIZE <= size <= HEAP_MAX:
        raise ValueError(f"a heap has from {ARENA_SIZE >> 20}MiB to {HEAP_MAX >> 40}TiB")
    return -(-size // ARENA_SIZE) * ARENA_SIZE


Percent = Annotated[int, BeforeValidator(_gogc)]
Procs = Annotated[int, BeforeValidator(_procs)]
ByteCount = Annotated[int, BeforeValidator(_byte_count), Field(ge=0, le=NO_LIMIT)]
MemoryLimit = Annotated[int, BeforeValidator(_limit), PlainSerializer(_show_limit)]
HeapSize = Annotated[int, BeforeValidator(_whole_arenas)]
File = Annotated[Path, BeforeValidator(_path)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def default_procs() -> int:
    """As many Ps as there are processors this process may run on; of a cgroup's quota of them the next whole number, but 2 at least (Go 1.25)."""
    allowed, quota = len(os.sched_getaffinity(0)), CpuCgroup.of_this_process().quota()
    if quota is not None:
        allowed = min(allowed, max(math.ceil(quota), 2))
    return min(allowed, MAX_PROCS)


# --- the options ------------------------------------------------------------------------------------------------------


class RuntimeSettings(BaseSettings):
    """What a runtime is started with."""

    model_config = SettingsConfigDict(env_prefix="GOMP_", extra="forbid", frozen=True, validate_default=True)

    procs: int = Field(
        default_factory=default_procs, ge=1, le=MAX_PROCS, description="Ps: processes that run programs (GOMAXPROCS)"
    )
    max_procs: int | None = Field(
        None,
        ge=1,
        le=MAX_PROCS,
        description="as many Ps there may be when their number changes; by default as many as processors this process may run on",
    )
    max_attached: int = Field(
        8,
        ge=0,
        le=MAX_PROCS - 2,
        description="Ps that are lent to processes which join a running runtime with gomp.attach, one each",
    )
    gogc: Percent = Field(
        100, description='heap growth in percent of the live heap before the next cycle, or "off" (GOGC)'
    )
    memory_limit: MemoryLimit = Field(
        NO_LIMIT,
        description='soft limit on all memory of the runtime, "auto" to follow the cgroup\'s, or "off" (GOMEMLIMIT)',
    )
    memory_limit_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="with auto: the part of the cgroup's limit that the runtime and its interpreters may take",
    )
    max_heap: HeapSize = Field(
        "4GiB", description="the heap never grows beyond this: 64MiB or a multiple, to which it is rounded up"
    )  # type: ignore[assignment]
    name: Name | None = Field(None, description="what `gomp ls` and `gomp verify` call this runtime")
    stop_deadline: float = Field(
        10.0, ge=0.1, le=60.0, description="seconds for which a process may hold up a stop before it is killed"
    )
    godebug: str = Field("", description="debug switches: gctrace=1,clobberfree=1,... (GODEBUG)")
    pacer_tape: File | None = Field(
        None, description="file that records the pacer's decisions, for `gomp pacer replay`"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least important log line that is written"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: object) -> object:
        """Pydantic would take it for 1 or 0."""
        if isinstance(value, bool):
            raise ValueError("true and false are no values of this option")
        return value

    @property
    def most_procs(self) -> int:
        """As many Ps there is room for: those at the start at least."""
        return max(self.procs, self.max_procs or min(len(os.sched_getaffinity(0)), MAX_PROCS))

    @property
    def debug(self) -> Debug:
        """The switches of ``godebug``, read."""
        return parse_godebug(self.godebug)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, GoEnvironment(settings_cls), TomlFile(settings_cls)


class MixedSettings(BaseModel):
    """Parameters of the program ``mixed``: request-like bursts over a slowly changing live set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(100.0, gt=0, le=1e6, description="bursts a second, over all Ps")
    live: ByteCount = Field(64 << 20, description="size of the live set")
    sizes: dict[int, float] = Field(
        {32: 50, 128: 30, 1024: 18, 16384: 2},
        min_length=1,
        description="object sizes in bytes, each with its weight in the mix",
    )
    stdlib_trees: bool = Field(True, description="also parse the standard library, round after round")

    @model_validator(mode="after")
    def _sizes_make_a_mix(self) -> MixedSettings:
        weights = self.sizes.values()
        if not all(0 < size <= 1 << 30 for size in self.sizes) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise ValueError("sizes: each is 1 byte to 1GiB with a weight of 0 or more, and some weight is not 0")
        return self


class ProgramSettings(BaseModel):
    """A program that the service keeps running: a short name from ``workers/`` or a dotted path, and its parameters.

    It is started again if its P dies; ``everywhere``: one of it runs on each P. Where GOMAXPROCS falls, those on surplus Ps end;
    where it rises, new Ps get theirs, and the others keep the share that they were told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str = Field(min_length=1)
    everywhere: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)

    def instances(self, procs: int) -> list[tuple[int | None, dict[str, Any]]]:
        """On which P each of them runs, None for any, and its parameters.

        One; or, ``everywhere``, one on each of ``procs`` Ps, which is told so by the parameters ``share`` (from 1) and ``shares``.
        """
        if not self.everywhere:
            return [(None, dict(self.parameters))]
        return [(p, self.parameters | {"share": p + 1, "shares": procs}) for p in range(procs)]

    @model_validator(mode="before")
    @classmethod
    def _parameters_of_mixed(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("program") == "mixed":
            return data | {"parameters": MixedSettings.model_validate(data.get("parameters", {})).model_dump()}
        return data


class ServiceSettings(RuntimeSettings):
    """What ``gomp serve`` is started with."""

    memory_limit: MemoryLimit = Field(  # type: ignore[assignment]
        "auto",
        description='soft limit on all memory of the runtime, "auto" to follow the cgroup\'s, or "off" (GOMEMLIMIT)',
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="address that /metrics is served on")
    metrics_port: int = Field(6070, ge=0, le=65535, description="its port; 0 takes any free one")
    metrics: Literal["default", "all"] = Field(
        "default", description="which metrics are served: Go's client's and our own, or all of Go's too"
    )
    control: Literal["unix", "tcp", "off"] = Field(
        "unix", description="how settings are changed while it runs: over a Unix socket, 127.0.0.1, or not at all"
    )
    control_port: int = Field(6071, ge=0, le=65535, description='the port for control = "tcp"; 0 takes any free one')
    control_token_file: File | None = Field(
        None, description='file of mode 0600 with the bearer token for control = "tcp"'
    )
    programs: tuple[ProgramSettings, ...] = Field(
        (ProgramSettings.model_validate({"program": "mixed", "everywhere": True}),),
        description="what runs on the Ps from the start",
    )


# --- settings that change while it runs -------------------------------------------------------------------------------

Setting = Literal["gogc", "memory_limit", "procs"]
_SETTING_TYPES: dict[str, TypeAdapter[int]] = {
    "gogc": TypeAdapter(Percent),
    "memory_limit": TypeAdapter(MemoryLimit),
    "procs": TypeAdapter(Procs),
}


def read_setting(name: Setting, value: object) -> int:
    """What somebody has written for a setting, as a number. Raises ConfigError."""
    if isinstance(value, str) and name != "memory_limit" and (number := _parse_integer(value)) is not None:
        value = number
    if isinstance(value, bool) or not isinstance(value, int | str):
        what = _LIMIT_HELP if name == "memory_limit" else "a number or a text"
        raise ConfigError(f"{name}: write {what} (not {_shown(value)})")
    try:
        return _SETTING_TYPES[name].validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{name}: {_describe(error.errors()[0])}") from None


def show_setting(name: Setting, value: int) -> int | str:
    """The number as somebody would write it: "off" or "auto" where that is what it means."""
    if name == "procs":
        return value or "auto"
    if name == "memory_limit" and value == AUTO:
        return "auto"
    is_off = value < 0 if name == "gogc" else value == NO_LIMIT
    return "off" if is_off else value


# --- where values come from -------------------------------------------------------------------------------------------


class GoEnvironment(PydanticBaseSettingsSource):
    """Go's environment variables, read as Go's runtime reads them. An empty one counts as absent, so a file can still speak."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if text := os.environ.get("GOGC"):
            values["gogc"] = parse_gogc(text)
        if (procs := parse_int32(os.environ.get("GOMAXPROCS", ""))) and procs > 0:
            values["procs"] = procs
        if text := os.environ.get("GOMEMLIMIT"):
            values["memory_limit"] = _go_memory_limit(text)
        if text := os.environ.get("GODEBUG"):
            values["godebug"] = text
        return values


def ignored(settings: RuntimeSettings) -> list[str]:
    """What was asked for and is passed over as Go does, in a sentence each, so that somebody learns of it."""
    found = []
    gogc, procs = os.environ.get("GOGC", ""), os.environ.get("GOMAXPROCS", "")
    if gogc not in ("", "off") and parse_int32(gogc) is None:
        found.append(f"GOGC={_shown(gogc)} is no number and counts as 100, as in Go")
    if procs and (parse_int32(procs) or 0) < 1:
        found.append(f"GOMAXPROCS={_shown(procs)} is no number of 1 or more and is ignored, as in Go")
    for name, value, number in _switches(settings.godebug):
        if name and number is None:
            found.append(
                f"GODEBUG: {_cut(f'{name}={value}')} is ignored: the switches are {', '.join(f.name for f in fields(Debug))}"
            )
    return found


def _go_memory_limit(text: str) -> int | str:
    limit = text if text in ("off", "auto") else parse_byte_count(text)
    if limit is None:
        raise ConfigError(f"malformed GOMEMLIMIT={_shown(text)}: write {_LIMIT_HELP}")
    return limit


_config_file: ContextVar[Path | None] = ContextVar("_config_file", default=None)


class TomlFile(PydanticBaseSettingsSource):
    """The TOML file that :func:`load` was given, if any."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        file = _config_file.get()
        if file is None:
            return {}
        try:
            return tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{file} is not valid TOML: {_one_line(str(error))}") from None
        except RecursionError:
            raise ConfigError(f"{file}: {_TOO_DEEP}") from None


S = TypeVar("S", bound=RuntimeSettings)


def load(kind: type[S], config_file: Path | None = None, **flags: Any) -> S:
    """The settings of ``kind``; a flag that is None was not given. Raises ConfigError."""
    with _reading(config_file):
        try:
            return kind(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            problems = [_describe(problem, kind) for problem in error.errors()]
            more = len(problems) - _MOST_PROBLEMS
            told = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise ConfigError("; ".join(told)) from None
        except SettingsError as error:
            raise ConfigError(f"{_one_line(str(error))}: write JSON") from None
        except RecursionError:  # of a variable, as JSON: the only option that is more than a word
            raise ConfigError(f"programs: {_TOO_DEEP}") from None


@contextmanager
def _reading(config_file: Path | None) -> Iterator[None]:
    token = _config_file.set(config_file)
    try:
        yield
    finally:
        _config_file.reset(token)


def _describe(problem: Any, kind: type[BaseModel] | None = None) -> str:
    """What is wrong, in one line; with a range where ``kind``, the settings that were read, have one for it."""
    where = _cut(".".join(part if _PLAIN.fullmatch(part) else repr(part) for part in map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such option"
    message = problem["msg"].removeprefix("Value error, ")
    if kind and where in kind.model_fields and (range_ := _range(kind.model_fields[where])):
        message = f"write {range_}"
    given = problem["input"]
    shown = f" (not {_shown(given)})" if isinstance(given, str | int | float) else ""
    return _one_line(f"{where}: {message}{shown}" if where else message)


def _range(field: FieldInfo) -> str:
    """The numbers that an option takes, in words; "" if it has no bounds of its own."""
    bounds = [
        f"{words} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, words in _BOUNDS.items()
        if hasattr(limit, name)
    ]
    kind = "a number" if field.annotation is float else "a whole number"
    return " ".join([kind, *bounds]) if bounds else ""


def _shown(given: object) -> str:
    """What was given, as far as a line has room for it."""
    if isinstance(given, int) and given.bit_length() > _MOST_SHOWN * 4:  # Python refuses to write thousands of digits
        return f"a number of {given.bit_length()} bits"
    return _cut(repr(given))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- the machine ------------------------------------------------------------------------------------------------------


def check_system() -> None:
    """Raise ConfigError where gomp cannot run at all, before anything is imported that would fail less clearly."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ConfigError(
            f"gomp runs on Linux on x86-64 and aarch64, not on {platform.system()} on {platform.machine()}"
        )
    release = platform.release()
    version = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if version < OLDEST_KERNEL:
        raise ConfigError(f"Linux {release} is too old: gomp needs {'.'.join(map(str, OLDEST_KERNEL))} or newer")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ConfigError("gomp does not run on a free-threaded Python: use the ordinary build")
