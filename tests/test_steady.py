"""Unix time that does not jump when the clock is set."""

from __future__ import annotations

import time

import pytest

from gomp.runtime import steady


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_moves_no_point(step_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before, began_ns = steady.unix_ms(), time.monotonic_ns()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step_s)
    went_by_ms = (time.monotonic_ns() - began_ns) / 1e6
    assert before + went_by_ms <= steady.unix_ms() < before + went_by_ms + 60_000


def test_it_is_unix_time() -> None:
    assert abs(steady.unix_ms() / 1e3 - time.time()) < 60
    now_ns = time.monotonic_ns()
    assert steady.unix_ms(now_ns) - steady.unix_ms(now_ns - 1_000_000) == pytest.approx(1, abs=0.01)
