"""References in transit: no interleaving loses one or gives one out twice, and each step of the protocol is needed for that."""

from __future__ import annotations

import pytest

from tests.protocols.transit_model import Broken, Model

MUTANTS = [
    ("not shaded", "is not marked|freed"),
    ("cleared before it is shaded", "is not marked|freed"),
    ("no compare-and-swap", "twice"),
    ("one number for all", "another object"),
    ("taken back when claimed", "another object|is not marked|freed"),
    ("dead claimers are waited for", "does not get its pair back"),
]


@pytest.mark.parametrize("seed", range(10))
def test_no_interleaving_breaks_the_protocol(seed):
    model = Model(seed)
    model.run(15_000)
    assert model.number > 10
    assert len(model.received) > 5


@pytest.mark.parametrize(("mutant", "problem"), MUTANTS)
def test_a_mutant_is_found(mutant, problem):
    with pytest.raises(Broken, match=problem):
        run_many(mutant)


def run_many(mutant):
    for seed in range(200):
        Model(seed, mutant).run(50_000)
