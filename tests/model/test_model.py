"""Random programs against the naive model, over the whole space of configurations, with heaps so small that every boundary is near.

Marking may be going on at any step, in steps as small as one object.
"""

from __future__ import annotations

import pytest
from heap_model import KINDS, Config, Program, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomp.core import COMPILED, load_kernels

EXAMPLES, STEPS, MANY = (60, 40, 700) if COMPILED else (4, 8, 20)

_P = st.integers(0, 2)
_SMALL = st.integers(0, 15)
_KIND = st.integers(0, len(KINDS) - 1)
ACTIONS = st.one_of(
    st.tuples(st.just("new"), _P, _KIND),
    st.tuples(st.just("link"), _P, st.integers(0, 40), _SMALL, st.integers(0, 40)),
    st.tuples(st.just("drop"), _SMALL),
    st.tuples(st.just("garbage"), _P, _KIND, st.integers(1, MANY // 10)),
    st.tuples(st.just("collect"), st.booleans()),
    st.tuples(st.just("cut"), _P, st.integers(0, 40), _SMALL),
    st.tuples(st.just("hold"), _P, st.integers(0, 40)),
    st.tuples(st.just("set_global"), _P, _SMALL, _SMALL),
    st.tuples(st.just("chain"), _P, st.integers(1, MANY)),
    st.tuples(st.just("fan"), _P, st.integers(1, MANY)),
    st.tuples(st.just("flush"), _P),
    st.tuples(st.just("rebuild")),
    st.tuples(st.just("begin")),
    st.tuples(st.just("begin")),
    st.tuples(st.just("scan"), _P),
    st.tuples(st.just("mark"), st.sampled_from([1, 8, 100, 10_000])),
    st.tuples(st.just("mark"), st.just(1)),
    st.tuples(st.just("finish")),
)
CONFIGS = st.builds(
    Config,
    nprocs=st.integers(1, 3),
    chunks=st.sampled_from([2, 1, 5]),
    gc_percent=st.sampled_from([-1, 5, 100]),
    collect_every=st.sampled_from([0, 1, 7]),
    clobberfree=st.sampled_from([0, 1]),
)


def programs(steps):
    return st.builds(Program, CONFIGS, st.lists(ACTIONS, min_size=1, max_size=steps).map(tuple))


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    load_kernels()


@given(programs(STEPS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_program_sees_what_the_model_says(program):
    run(program)


@pytest.mark.slow
@given(programs(3 * STEPS))
@settings(max_examples=40 * EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
def test_many_longer_programs_see_what_the_model_says(program):
    run(program)


def test_work_buffers_overflow_on_three_ps():
    """More grey objects than a P's two buffers hold, found from roots of every kind, twice."""
    n = 2000 if COMPILED else 40
    run(
        Program(
            Config(nprocs=3, chunks=4, clobberfree=1),
            (
                ("fan", 0, n), ("fan", 1, n), ("chain", 2, n // 4), ("set_global", 0, 0, 1), ("drop", 0), ("collect", False),
                ("garbage", 1, 0, n // 4), ("collect", True), ("rebuild",), ("fan", 2, n), ("collect", True),
            ),
        )
    )  # fmt: skip


@pytest.mark.parametrize("kind", range(0, len(KINDS), 1 if COMPILED else 7))
def test_each_kind_survives_and_dies(kind):
    run(
        Program(
            Config(nprocs=2, chunks=3, clobberfree=1),
            (
                ("new", 0, kind), ("new", 1, kind), ("link", 0, 0, 0, 1), ("drop", 1), ("collect", True), ("garbage", 0, kind, 3),
                ("new", 1, kind), ("collect", False), ("garbage", 1, kind, 2), ("drop", 0), ("collect", True), ("drop", 0),
                ("collect", True),
            ),
        )
    )  # fmt: skip
