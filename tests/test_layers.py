"""The structure of the source, read from its syntax: who may import whom, what a kernel may call, how records are laid out."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from gomp.core.shm import layout, records

ROOT = Path(__file__).parent.parent
PACKAGES = ("gomp", "workers")

# From the bottom up; a module belongs to the longest prefix that fits, and imports from its own layer and those above it in this list.
# The service reads records (memstats) and is started by the coordinator, so it stands between the two halves of gomp.runtime.
LAYERS = (
    "gomp.errors",
    "gomp.core.killsites",
    "gomp.core.machine_code",
    "gomp.core.jit",
    "gomp.core",
    "gomp.core.shm",
    "gomp.core.sched",
    "gomp.core.heap",
    "gomp.core.gc",
    "gomp.core.mutator",
    "gomp.cgroup",
    "gomp.pressure",
    "gomp.config",
    "gomp.forked",
    "gomp.kernels",
    "gomp.runtime.recordaddr",
    "gomp.runtime.memstats",
    "gomp.runtime.residency",
    "gomp.runtime.gctrace",
    "gomp.runtime.cyclelog",
    "gomp.runtime.sitetable",
    "gomp.runtime.sitecounts",
    "gomp.runtime.usage",
    "gomp.runtime.processes",
    "gomp.runtime.gcstats",
    "gomp.runtime.metrics",
    "gomp.runtime.goroutineprofile",
    "gomp.runtime.memprofile",
    "gomp.runtime.pprof",
    "gomp.runtime.cpuprofile",
    "gomp.runtime.channel",
    "gomp.runtime.discovery",
    "gomp.runtime.looking",
    "gomp.runtime.units",
    "gomp.runtime.doing",
    "gomp.runtime.steady",
    "gomp.runtime.reading",
    "gomp.runtime.traced",
    "gomp.runtime.tracks",
    "gomp.runtime.timeline",
    "gomp.runtime.traces",
    "gomp.service",
    "gomp.runtime",
    "gomp.debug",
    "gomp.metrics",
    "gomp",
    "gomp.ctl",
    "gomp.gctracereport",
    "gomp.demo",
    "gomp.top",
    "gomp.stress",
    "gomp.cli",
    "gomp.__main__",
    "workers",
)
# Python files of the core that are not kernels, or not only, and the functions of others that run before any kernel does.
HOST_SIDE = {
    "gomp.core.killsites": "rewrites machine code, in a build of its own",
    "gomp.core.machine_code": "packs and loads",
    "gomp.core.jit": "compiles, caches and links",
    "gomp.core.shm.atomics": "lowerings of primitives",
    "gomp.core.shm.calls": "lowering of a primitive",
    "gomp.core.shm.interpreter": "lowerings of primitives",
    "gomp.core.shm.libc": "lowerings of primitives",
    "gomp.core.shm.records": "makes dtypes and accessors",
    "gomp.core.shm.segments": "makes and maps the segments",
    "gomp.core.heap.sizeclass": "makes the tables of constants",
}
HOST_FUNCTIONS = {("gomp.core.shm.layout", "_region_addresses")}
DECORATORS = {"kernel", "inline", "primitive", "intrinsic"}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}
CORE = [name for name in MODULES if name.startswith("gomp.core.")]


@cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


def imports(module, everywhere=True):
    """The modules of ours that ``module`` imports; without ``everywhere`` only when it is itself imported, and not for types alone."""
    found = set()
    for node in ast.walk(tree(module)) if everywhere else runs_on_import(tree(module).body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            # `from package import name` means the module of that name, if there is one.
            names = [
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                for alias in node.names
            ]
        else:
            continue
        found |= {name for name in names if name in MODULES}
    return found - {module}


def runs_on_import(body):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            for inner in ("body", "orelse", "finalbody", "handlers"):
                yield from runs_on_import(getattr(node, inner, []))


def layer(module):
    fitting = [prefix for prefix in LAYERS if module == prefix or module.startswith(prefix + ".")]
    return LAYERS.index(max(fitting, key=len)) if fitting else len(LAYERS)


def decorators(function):
    names = (ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in function.decorator_list)
    return {name.rpartition(".")[2] for name in names}


@cache
def functions(module):
    return {node.name: node for node in tree(module).body if isinstance(node, ast.FunctionDef)}


@cache
def names_of(module):
    """What each imported name stands for: a module, or (module, attribute)."""
    names = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names[alias.asname or alias.name] = whole if whole in MODULES else (node.module, alias.name)
    return names


def called(module, function):
    """(module, name) of every function of ours that ``function`` calls by name."""
    for node in (inner for statement in function.body for inner in ast.walk(statement)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            meaning = names_of(module).get(node.func.id, (module, node.func.id))
            if isinstance(meaning, tuple) and meaning[0] in MODULES:
                yield meaning
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            meaning = names_of(module).get(node.func.value.id)
            if isinstance(meaning, str):
                yield meaning, node.func.attr


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_layer_and_below(module):
    upwards = {other for other in imports(module) if layer(other) > layer(module)}
    assert upwards == set()


def test_every_module_has_a_layer():
    """The last fit, "gomp", is for the package itself only."""
    assert [
        module
        for module in MODULES
        if layer(module) == len(LAYERS) or (layer(module) == LAYERS.index("gomp") and module != "gomp")
    ] == []


def test_every_layer_has_modules():
    occupied = {layer(module) for module in MODULES}
    assert [prefix for i, prefix in enumerate(LAYERS) if i not in occupied] == []


def test_no_two_modules_need_each_other_to_be_imported():
    graph = {module: imports(module, everywhere=False) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_nothing_in_gomp_imports_a_program():
    assert [
        module
        for module in MODULES
        if module.startswith("gomp") and any(i.startswith("workers") for i in imports(module))
    ] == []


def test_the_core_knows_nothing_of_the_rest():
    assert {i for module in CORE for i in imports(module) if not i.startswith("gomp.core")} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("gomp.service")])
def test_the_service_only_reads_and_asks(module):
    """Of the runtime it knows the figures, and the way to the coordinator, not the machinery."""
    of_runtime = {
        i for i in imports(module) if i.startswith("gomp.runtime") and not i.startswith("gomp.runtime.metrics.")
    }
    figures = {
        f"gomp.runtime.{name}"
        for name in (
            "memstats",
            "cyclelog",
            "residency",
            "goroutineprofile",
            "memprofile",
            "cpuprofile",
            "sitecounts",
            "pprof",
            "traces",
            "doing",
            "steady",
            "reading",
        )
    }
    assert of_runtime <= figures | {"gomp.runtime.discovery"}


@pytest.mark.parametrize("module", [module for module in CORE if module not in HOST_SIDE])
def test_every_function_of_the_core_is_a_kernel_or_an_inline(module):
    plain = {name for name, function in functions(module).items() if not decorators(function) & DECORATORS}
    assert {(module, name) for name in plain} <= HOST_FUNCTIONS
    assert [node.name for node in tree(module).body if isinstance(node, ast.ClassDef)] == []


@pytest.mark.parametrize("module", CORE)
def test_kernels_call_only_what_is_compiled(module):
    compiled = [f for f in functions(module).values() if decorators(f) & {"kernel", "inline"}]
    plain = {
        f"{function.name} calls {target}.{name}"
        for function in compiled
        for target, name in called(module, function)
        if name in functions(target) and not decorators(functions(target)[name]) & DECORATORS
    }
    assert plain == set()


@pytest.mark.parametrize("module", CORE)
def test_kernels_read_shared_words_through_atomics(module):
    """A record's field is read as often as LLVM likes: a loop on one never sees another process's write."""
    shared = {name for dtype in records.RECORDS for name in dtype.names if name.startswith("x")}
    plain = [
        f"{function.name}: .{node.attr} in line {node.lineno}"
        for function in functions(module).values()
        if decorators(function) & {"kernel", "inline"}
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in shared and isinstance(node.ctx, ast.Load)
    ]
    assert plain == []


def test_the_clock_that_may_be_set_is_read_where_a_date_is_shown_and_nowhere_else():
    clocks = ("time.time", "time.time_ns", "time.CLOCK_REALTIME", "datetime.now")
    found = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if module.startswith("gomp.") and isinstance(node, ast.Attribute) and ast.unparse(node) in clocks
    }
    assert found == {"gomp.runtime.collector", "gomp.runtime.pprof", "gomp.runtime.steady", "gomp.runtime.tracing"}


def test_numba_compiles_in_few_places():
    """Kernels are compiled by jit alone; the others compile what users write."""
    compilers = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil"}
    compiling = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "numba"
            and compilers & {alias.name for alias in node.names}
        )
        or (isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("numba", "nb") and node.attr in compilers)
    }
    assert compiling == {"gomp.core.jit", "gomp.runtime.compiled", "gomp.runtime.polling", "gomp.runtime.steps"}


def test_the_compiler_comes_with_whatever_teaches_numba():
    """Else compiled code would know it only after something else has imported it."""
    teaches = {
        "in_compiled_code",
        "infer_getattr",
        "infer_global",
        "intrinsic",
        "lower_builtin",
        "overload",
        "typeof_impl",
    }
    found, todo = set(), ["gomp.runtime.compiled"]
    while todo:
        module = todo.pop()
        found.add(module)
        todo += imports(module, everywhere=False) - found - set(todo)
    teachers = {
        module
        for module in MODULES
        if module.startswith("gomp.runtime.")
        and any(
            isinstance(node, ast.ImportFrom) and teaches & {alias.name for alias in node.names}
            for node in ast.walk(tree(module))
        )
    }
    assert teachers - found == {"gomp.runtime.steps"}, "which begins a program where the steps of frames end"


@pytest.mark.parametrize("i", range(len(records.RECORDS)))
def test_every_field_of_a_record_is_aligned(i):
    dtype = records.RECORDS[i]
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        assert offset % field.base.alignment == 0, name
        if field.base.itemsize == 8:
            assert field.base.kind in "ifS", f"{name}: kernels count in int64 and float64"
    assert dtype.itemsize % 8 == 0


def test_records_of_which_there_is_one_do_not_overlap():
    r = records
    ones = [
        (r.RUNTIME, r.runtime_dtype), (r.MHEAP, r.mheap_dtype), (r.PACER, r.pacer_dtype), (r.LIMITER, r.limiter_dtype),
        (r.SCAVPACE, r.scavpace_dtype), (r.STACKPOOL, r.stackpool_dtype), (r.SCHED, r.sched_dtype), (r.GCSTATS, r.gcstats_dtype),
        (r.PACER_LOG, r.pacer_log_dtype), (r.CPU_HEAD, r.cpu_head_dtype), (r.MEMPROFILE, r.memprofile_dtype),
        *((at, r.timehist_dtype) for at in (r.STOPPING_OTHER, r.STOPPED_OTHER, r.STOPPING_GC, r.STOPPED_GC)),
    ]  # fmt: skip
    spaces = [(base, base + dtype.itemsize) for base, dtype in ones]
    spaces.append((r.PACER_EVENTS, r.PACER_EVENTS + r.MAX_PACER_EVENTS * r.pacer_event_dtype.itemsize))
    spaces.append((r.CPU_STATS, r.CPU_STATS + 2 * r.cpu_dtype.itemsize))
    spaces.append((r.CYCLES, r.CYCLES + r.CYCLES_KEPT * r.cycle_dtype.itemsize))
    spaces.append((r.layout.MCENTRALS_BASE, r.layout.TYPES_BASE))
    assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spaces)))


def test_regions_of_the_address_map_do_not_overlap():
    starts = [layout.REGION[name] for name, _ in layout.REGIONS]
    assert starts == sorted(starts)
    for (name, size), start, after in zip(layout.REGIONS, starts, [*starts[1:], layout.REGION["end"]], strict=True):
        assert start % 4096 == 0, name
        assert start + size <= after, name
    spaces = sorted([
        (layout.HEAP_BASE, layout.HEAP_LIMIT), (layout.META_BASE, layout.REGION["end"]),
        (layout.SELF_BASE, layout.SELF_BASE + layout.P_STRIDE),
    ])  # fmt: skip
    assert all(end <= start for (_, end), (start, _) in pairwise(spaces))
    assert spaces[-1][1] < 1 << 47
