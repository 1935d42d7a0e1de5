"""How a kernel is compiled, cached and linked.

Nouns
-----
kernel   A function with one explicit signature. It is compiled once per machine, called from Python through its entry
         point and from other kernels *by symbol*, so that a caller never recompiles it.
inline   A helper that is compiled into each kernel that uses it: accessors and fast paths.
primitive  A single machine operation with two bodies: an LLVM lowering, and a checked Python body.

Life of a kernel
----------------
1. ``@kernel(signature)`` registers it; importing a module compiles nothing.
2. :func:`load_kernels` goes through the kernels, callees first, takes each from the cache or compiles it, and gives its C address to LLVM's
   linker under its symbol. The first start on a machine fills the cache before, with all processors (``gomp/kernels.py``).
3. From then on ``kernel(...)`` is a direct call of the compiled entry point.

The cache is a directory named by a hash of the versions of Python, numpy, numba and llvmlite, the processor and the build mode; a kernel's file
in it is named by a hash of its module's source and of every module of ours that this one imports, as they were when this process
began. A stale entry therefore cannot be found, and nothing ever needs to be invalidated. Files appear by rename, so readers never see half of one.

With ``NUMBA_DISABLE_JIT=1`` nothing is compiled: kernels and inlines are the plain Python functions, primitives their Python bodies.
"""

from __future__ import annotations

import ast
import dis
import fcntl
import functools
import hashlib
import json
import marshal
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import njit, types
from numba.core import sigutils
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.registry import cpu_target
from numba.extending import typeof_impl

from gomp.core import killsites, machine_code

COMPILED = not numba.config.DISABLE_JIT

if killsites.DIRECTORY:
    killsites.install()


def _stamp(source: Path) -> tuple[int, int, int]:
    found = source.stat()
    return found.st_ctime_ns, found.st_ino, found.st_size


_CORE = Path(__file__).parent
_FOUND = {source: _stamp(source) for source in _CORE.rglob("*.py")}  # before they are imported, all but a few
_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
_kernels: list[Kernel] = []


class SourcesChanged(RuntimeError):
    """Sources that this process has imported are others now, as after an upgrade."""


class Kernel:
    """A compiled function of fixed signature; ``symbol`` is its name for the linker, ``address`` its C entry."""

    def __init__(self, py_func: Callable[..., Any], signature: str, nogil: bool) -> None:
        self.py_func = py_func
        self.nogil = nogil
        self.args, self.restype = sigutils.normalize_signature(signature)
        if types.boolean in (*self.args, self.restype):
            raise TypeError(f"{py_func.__name__}: a boolean has another width between kernels; use int64")
        self.symbol = f"{py_func.__module__}.{py_func.__name__}".replace(".", "_")
        self.external = types.ExternalFunction(self.symbol, self.restype(*self.args))
        self.is_core = py_func.__module__.startswith("gomp.core.")
        self.address = 0
        self.entry: Callable[..., Any] = self._load_all_and_call
        functools.update_wrapper(self, py_func)

    @functools.cached_property
    def cache_name(self) -> str:
        """Its file in the cache directory: named by its symbol and by every source that its machine code depends on."""
        return _index().get(self.symbol) or self._cache_name()

    def _cache_name(self) -> str:
        code = self.py_func.__code__
        source = Path(code.co_filename)
        digest = sources_hash(source) if source.is_file() else hashlib.sha256(marshal.dumps(code)).hexdigest()
        return f"{self.symbol}-{digest[:16]}.pickle"

    def __call__(self, *args: Any) -> Any:
        return self.entry(*args)

    def __repr__(self) -> str:
        return f"<kernel {self.symbol}{self.args}>"

    def _load_all_and_call(self, *args: Any) -> Any:
        load_kernels()
        return self.entry(*args)

    def compile(self) -> CompileResult:
        """Compile it and put its machine code into the cache."""
        dispatcher = njit(nogil=self.nogil, **_OPTIONS)(self.py_func)
        dispatcher.compile(self.args)
        result = dispatcher.get_compile_result(self.restype(*self.args))
        write_atomically(cache_directory() / self.cache_name, machine_code.pack(result, has_constants=False))
        return result

    def load(self) -> None:
        """Take the machine code from the cache, compiling it first if it is not there, and publish the symbol."""
        file = cache_directory() / self.cache_name
        if file.exists():
            self._code = machine_code.unpack(file.read_bytes())
        else:
            self._code = machine_code.compiled_here(self.compile())
        self.address = self._code.address
        llvm.add_symbol(self.symbol, self.address)
        self.entry = self._code.entry


@typeof_impl.register(Kernel)
def _typeof_kernel(value: Kernel, context: object) -> types.Type:
    return value.external


def kernel(signature: str, *, nogil: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Declare a kernel: ``@kernel("int64(int64, int64)")``. Arguments and result are int64 or float64.

    ``nogil`` releases the interpreter's lock while Python waits in it: for kernels that only sleep.
    """

    def declare(py_func: Callable[..., Any]) -> Any:
        if not COMPILED:
            return py_func
        declared = Kernel(py_func, signature, nogil)
        _kernels.append(declared)
        return declared

    return declare


def inline(py_func: Callable[..., Any]) -> Any:
    """Declare a helper that becomes part of every kernel that calls it."""
    return njit(forceinline=True, **_OPTIONS)(py_func)


def load_kernels() -> None:
    """Load every registered kernel that is not loaded yet.

    Processes that start together compile once: the first holds a lock on the cache directory, the others wait and then find the files.
    Who finds everything in the cache waits for nobody: another version may be compiling its own.
    """
    if all(k.address for k in _kernels):
        return
    with locked_cache() if missing_kernels() else nullcontext():
        _refresh_numba()
        for k in _in_loading_order(_kernels):
            if not k.address:
                k.load()


@functools.cache
def _refresh_numba() -> None:
    """Have Numba import what it imports at the first compilation: with it come symbols that code from the cache may name."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def missing_kernels() -> list[Kernel]:
    """The registered kernels that :func:`load_kernels` would have to compile."""
    return [k for k in _kernels if not k.address and not (cache_directory() / k.cache_name).exists()]


def compile_only() -> None:
    """Let this process compile kernels and run none: every kernel's symbol gets some address, so that its callers can be linked."""
    for k in _kernels:
        llvm.add_symbol(k.symbol, 1)


def compile_kernel(symbol: str) -> None:
    """Compile the kernel of that symbol and put its machine code into the cache."""
    next(k for k in _kernels if k.symbol == symbol).compile()


def _in_loading_order(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels so that each comes after those it calls; those that the index has need not be looked into for that."""
    index = _index()
    if any(k.is_core and k.symbol not in index for k in kernels):
        ordered = _callees_first(kernels)
        _write_index({k.symbol: k.cache_name for k in ordered if k.is_core} | index)
        return ordered
    place = {symbol: i for i, symbol in enumerate(index)}
    core = sorted((k for k in kernels if k.is_core), key=lambda k: place[k.symbol])
    return core + [k for k in _callees_first([k for k in kernels if not k.is_core]) if not k.is_core]


def _callees_first(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels so that each comes after those it calls: a symbol must exist when the code that names it is linked."""
    order: dict[Kernel, None] = {}

    def visit(k: Kernel, path: tuple[Kernel, ...]) -> None:
        if k in path:
            raise TypeError(f"kernels call each other in a circle: {[x.symbol for x in (*path, k)]}")
        if k not in order:
            for callee in _kernels_named_by(k.py_func):
                visit(callee, (*path, k))
            order[k] = None

    for k in kernels:
        visit(k, ())
    return list(order)


def _kernels_named_by(function: Any) -> Iterator[Kernel]:
    """The kernels that a function names, itself or through the inlines of its own module.

    Those of other modules were registered when the module was imported, which was earlier.
    """
    names = {i.argval: None for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, Kernel) and value.py_func is not function:
            yield value
        elif isinstance(value, Dispatcher) and value.py_func.__module__ == function.__module__:
            yield from _kernels_named_by(value.py_func)


def _index_file() -> Path:
    return cache_directory() / f"index-{cache_key()}.json"


@functools.cache
def _index() -> dict[str, str]:
    """By symbol, the ``cache_name`` of kernels of the core as some process has found it with the same sources, callees first.

    Finding it means to parse every source: what takes half of a start when all machine code is in the cache.
    """
    try:
        return dict(json.loads(_index_file().read_text()))
    except (FileNotFoundError, ValueError):  # a machine that lost its power may have left an empty file
        return {}


def _write_index(names: dict[str, str]) -> None:
    """The names of this process's kernels come first, and none of them calls one that it has not got."""
    write_atomically(_index_file(), json.dumps(names).encode())


def count_kernels() -> int:
    """How many kernels are registered: all that the imported modules declare."""
    return len(_kernels)


@functools.cache
def cache_directory() -> Path:
    """Where this machine's kernels are: ``$GOMP_CACHE_DIR``, else below ``$XDG_CACHE_HOME``, in a folder named by :func:`build_key`."""
    root = killsites.DIRECTORY or os.environ.get("GOMP_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gomp"
    directory = base / build_key()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@functools.cache
def build_key() -> str:
    """A hash of what all machine code depends on beside its sources: the processor, the versions, the build mode."""
    build = (
        sys.version,
        np.__version__,
        numba.__version__,
        llvmlite.__version__,
        platform.machine(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        numba.config.BOUNDSCHECK,
        Path(__file__).read_bytes(),
        Path(machine_code.__file__).read_bytes(),
    )
    return hashlib.sha256(repr(build).encode()).hexdigest()[:20]


@functools.cache
def cache_key() -> str:
    """A hash of everything that code compiled against the core depends on."""
    digest = hashlib.sha256(build_key().encode())
    for source in sorted(_CORE.rglob("*.py")):
        digest.update(source.relative_to(_CORE).as_posix().encode() + b"\0" + _read(source) + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def sources_hash(source: Path) -> str:
    """A hash of a module's source and, through its imports, of all of gomp's that it uses."""
    digest = hashlib.sha256()
    for file in sorted(_closure(source)):
        digest.update(file.name.encode() + b"\0" + _read(file) + b"\0")
    return digest.hexdigest()


def _read(source: Path) -> bytes:
    """A source as it was imported. Raises SourcesChanged if that is another now: its machine code would be found under the new one's name."""
    content = source.read_bytes()
    if source.is_relative_to(_CORE) and _stamp(source) != _FOUND.get(source):
        raise SourcesChanged(f"{source} has been changed since this process began: start it again")
    return content


def _closure(source: Path) -> set[Path]:
    """``source`` and every file of gomp that it imports, directly or not."""
    found, pending = {source}, [source]
    while pending:
        for imported in _imports_of(pending.pop()):
            if imported not in found:
                found.add(imported)
                pending.append(imported)
    return found


@functools.cache
def _imports_of(source: Path) -> tuple[Path, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = (
        getattr(sys.modules.get(name), "__file__", None) for name in names if name.startswith(("gomp.core.", "tests."))
    )
    return tuple(
        Path(file) for file in files if file and Path(file).name not in ("__init__.py", "jit.py", "machine_code.py")
    )


def write_atomically(file: Path, data: bytes) -> None:
    """Make ``file`` hold ``data``; another process sees all of it or nothing, and if it raises nothing is left."""
    with ExitStack() as undo:
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as out:
            undo.callback(os.unlink, out.name)
            out.write(data)
        os.replace(out.name, file)
        undo.pop_all()


@contextmanager
def locked_cache() -> Iterator[None]:
    """Be the only process that compiles into the cache directory."""
    with open(cache_directory() / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Primitive(_Intrinsic):
    """One machine operation: ``typing`` gives Numba its signature and lowering, ``body`` is what runs in plain Python."""

    def __init__(self, typing: Callable[..., Any], body: Callable[..., Any]) -> None:
        super().__init__(body.__name__, typing)
        self.body = body
        functools.update_wrapper(self, body)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.body(*args, **kwargs)


def primitive(signature: str, lower: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Declare a primitive. ``lower(builder, args)`` emits LLVM; the decorated function is the Python body."""
    args, restype = sigutils.normalize_signature(signature)
    result = types.void if restype is None else restype

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        out = lower(builder, values)
        return context.get_dummy_value() if out is None else out

    def declare(body: Callable[..., Any]) -> Any:
        declared = Primitive(_typing_of_arity(len(args), result(*args), codegen), body)
        declared._register()
        return declared

    return declare


def _typing_of_arity(n: int, signature: Any, codegen: Callable[..., Any]) -> Callable[..., Any]:
    """Numba matches an intrinsic's arguments against the parameters of its typing function, so there is one per arity."""
    arities: tuple[Callable[..., Any], ...] = (
        lambda context: (signature, codegen),
        lambda context, a: (signature, codegen),
        lambda context, a, b: (signature, codegen),
        lambda context, a, b, c: (signature, codegen),
        lambda context, a, b, c, d: (signature, codegen),
    )
    return arities[n]
