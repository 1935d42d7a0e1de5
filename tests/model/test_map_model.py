"""Random operations on maps against dict, by two Ps, with collections and steps of marking in between."""

from __future__ import annotations

import pytest
from heap_world import heap_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from map_world import Maps

from gomp.core import COMPILED, load_kernels

EXAMPLES, STEPS = (80, 120) if COMPILED else (4, 25)
_P, _KEY = st.integers(0, 1), st.integers(-20, 20)
ACTIONS = st.one_of(
    st.tuples(st.just("put"), _P, _KEY, st.integers(0, 1000)),
    st.tuples(st.just("put"), _P, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1000)),
    st.tuples(st.just("many"), _P, st.integers(1, 60)),
    st.tuples(st.just("remove"), _P, _KEY),
    st.tuples(st.just("get"), _P, _KEY),
    st.tuples(st.just("thin"), _P, st.integers(2, 5)),
    st.tuples(st.just("clear"), _P),
    st.tuples(st.just("collect")),
    st.tuples(st.just("begin")),
    st.tuples(st.just("mark"), st.integers(1, 500)),
    st.tuples(st.just("finish")),
)


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    load_kernels()


def run(actions):
    with heap_world(nprocs=2, max_pages=8192) as world:
        maps = Maps(world)
        made = maps.new(0)
        held = (made, world.hold(1, world.address(made)))
        model: dict[int, int] = {}
        for action, *args in actions:
            p = args[0] if args else 0
            if action == "put":
                maps.put(p, held[p], args[1], args[2])
                model[args[1]] = args[2]
            elif action == "many":
                for i in range(args[1]):
                    maps.put(p, held[p], 1000 + i, i)
                    model[1000 + i] = i
            elif action == "remove":
                assert maps.remove(p, held[p], args[1]) == model.pop(args[1], None)
            elif action == "get":
                assert maps.get(p, held[p], args[1]) == model.get(args[1])
            elif action == "thin":
                for key in list(model)[:: args[1]]:
                    assert maps.remove(p, held[p], key) == model.pop(key)
            elif action == "clear":
                maps.clear(p, held[p])
                model.clear()
            elif action == "collect":
                world.collect()
            elif action == "begin":
                world.begin_marking()
            elif action == "mark":
                world.mark(args[0])
            else:
                assert world.finish_marking() == ()
            assert maps.length(held[0]) == len(model)
        assert maps.contents(1, held[1]) == model
        assert world.finish_marking() == ()
        world.collect()
        assert maps.contents(0, held[0]) == model
        assert {key: maps.get(1, held[1], key) for key in model} == model
        report = world.verify()
        assert report.objects == report.reached


@given(st.lists(ACTIONS, min_size=1, max_size=STEPS))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_map_is_what_the_model_says(actions):
    run(actions)


@pytest.mark.slow
@given(st.lists(ACTIONS, min_size=1, max_size=3 * STEPS))
@settings(max_examples=20 * EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
def test_a_map_is_what_the_model_says_for_longer(actions):
    run(actions)
