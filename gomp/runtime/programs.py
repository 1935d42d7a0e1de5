"""What a P runs: a program by name, or a function.

A program is a callable in an importable module: ``package.module:function``, or ``package.module`` for its ``main``. A short name, as ``churn`` or
``reference.churn``, stands for a module of the ``workers`` package, which comes first.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import pickle
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from gomp.errors import ConfigError, ProgramError, StaleReference, WorkerDied
from gomp.runtime import coroutines, sites, transit

MAX_NAME = 200


@dataclass(frozen=True)
class Call:
    """What to call: a program's name or a function, with its arguments."""

    target: str | Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None

    def dumps(self) -> bytes:
        return transit.dumps(self)

    def __str__(self) -> str:
        """Its name, for messages and people: never a repr, which may hold any amount of data."""
        if isinstance(self.target, str):
            return self.target[:MAX_NAME]
        return str(getattr(self.target, "__name__", type(self.target).__name__))[:MAX_NAME]

    def run(self) -> Any:
        """Its result; of a generator or a coroutine that it makes, what that returns as a goroutine."""
        result = self._call()
        return coroutines.go(result, (), {}).wait() if coroutines.is_body(result) else result

    def _call(self) -> Any:
        kwargs = self.kwargs or {}
        if not isinstance(self.target, str):
            with sites.program(self.target):
                return self.target(*self.args, **kwargs)
        function = find_program(self.target)
        bound = check_parameters(str(self), function, self.args, kwargs)
        if bound:
            check_types(self.target, function, bound.arguments)
        with sites.program(function):
            return function(*self.args, **kwargs)


def find_program(name: str) -> Callable[..., Any]:
    """The function that ``name`` stands for. Raises ConfigError."""
    module_name, _, attribute = name.partition(":")
    if "." not in module_name or _is_worker(module_name):
        module_name = f"workers.{module_name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"there is no program {name}: no module {module_name} can be imported") from None
    function = getattr(module, attribute or "main", None)
    if not callable(function):
        raise ConfigError(f"there is no program {name}: {module_name} has no function {attribute or 'main'}")
    return function  # type: ignore[no-any-return]


def _is_worker(module_name: str) -> bool:
    """Whether a dotted path names a module inside ``workers``."""
    try:
        return importlib.util.find_spec(f"workers.{module_name}") is not None
    except ModuleNotFoundError:
        return False


def check_parameters(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    """Raise ConfigError, naming the parameters there are, unless ``function`` can be called so."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}; its parameters are {', '.join(signature.parameters) or 'none'}") from None


def check_types(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Raise ConfigError for what the shell or a file gave a program of this name and its annotations do not allow."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        return
    for parameter in arguments.keys() & hints.keys():
        try:
            TypeAdapter(hints[parameter]).validate_python(arguments[parameter], strict=True)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigError(f"{name}: {parameter}={arguments[parameter]!r}: give {why}") from None
        except PydanticSchemaGenerationError:  # a type of the program's own
            continue


class Outcome(NamedTuple):
    """The pickled result of a call or what it raised, and the references in it."""

    succeeded: bool
    payload: bytes
    sent: list[transit.Sent]


def dump_outcome(call: Callable[[], Any], heir: int = transit.NOBODY) -> Outcome:
    """How a call ended, for the P ``heir``. What cannot be pickled becomes a ProgramError that says so.

    A program that calls ``sys.exit`` or is cancelled has ended, and nothing else with it.
    """
    try:
        result = call()
        with transit.parcel(heir) as sent:
            return Outcome(True, transit.dumps(result), sent)
    except BaseException as error:
        with transit.parcel(heir) as sent:
            return Outcome(False, dump_failure(error), sent)


def dump_failure(error: BaseException) -> bytes:
    """An exception and its traceback, pickled; as a ProgramError if it would end the waiter, or does not survive the journey."""
    text = _traceback_of(error)
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):
            with transit.parcel() as tried:
                data = transit.dumps((error, text))
                pickle.loads(data)  # fails for a class whose __init__ wants other arguments than Exception kept
            return transit.dumps((error, text)) if tried else data  # references are received once
    summary = "".join(traceback.format_exception_only(error)).strip()
    return transit.dumps((ProgramError(summary, text), text))


def _traceback_of(error: BaseException) -> str:
    """As Python shows it, without the frames of this package that led to the call; of a reference that leads nowhere without any of them."""
    first = error.__traceback__
    while first is not None and Path(first.tb_frame.f_code.co_filename).parent == _PACKAGE:
        first = first.tb_next
    if first is None and not isinstance(error, StaleReference):
        first = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, first))


_PACKAGE = Path(__file__).parent


class RemoteTraceback(Exception):
    """The traceback of an exception on the P where it was raised: shown as the cause of what is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(f'\n"""\n{text}"""')


def load_outcome(succeeded: bool, payload: bytes) -> Any:
    """The result that :func:`dump_outcome` packed; raises what it packed, and WorkerDied if the P took references in it along when it died."""
    if succeeded:
        try:
            return cloudpickle.loads(payload)
        except StaleReference as stale:
            raise WorkerDied(
                f"the goroutine had ended, and its P has died before its result was received: {stale}"
            ) from None
    error, text = cloudpickle.loads(payload)
    error.__cause__ = RemoteTraceback(text) if text.startswith("Traceback") else None
    try:
        raise error
    finally:
        del error  # its traceback leads to this frame: together they would keep what the callers hold until Python looks for cycles
