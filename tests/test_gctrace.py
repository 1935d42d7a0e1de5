"""The gctrace line against texts and lines that Go printed."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp.runtime.gctrace import Cycle, format_cycle, format_ms, format_seconds

DATA = Path(__file__).parent / "data/gctrace"
EXAMPLES = json.loads((DATA / "format-examples.json").read_text())
GO_LINES = (DATA / "go-lines.txt").read_text().splitlines()


@pytest.mark.parametrize(("ns", "text"), EXAMPLES["duration_ns_to_ms_text"])
def test_a_duration_is_written_as_go_writes_it(ns, text):
    assert format_ms(ns) == text


@pytest.mark.parametrize(("ms", "text"), EXAMPLES["ms_since_start_to_seconds_text"])
def test_the_time_since_start_is_written_as_go_writes_it(ms, text):
    assert format_seconds(ms * 1_000_000) == format_seconds(ms * 1_000_000 + 999_999) == text


@given(st.integers(0, 1 << 50))
def test_a_duration_is_cut_off_never_rounded_up(ns):
    shown = round(float(format_ms(ns)) * 1e6)
    assert shown <= ns
    assert ns - shown < max(ns / 10, 1000)


LINE = re.compile(
    r"gc (\d+) @([\d.]+)s (\d+)%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock, ([\d.]+)\+([\d.]+)/([\d.]+)/([\d.]+)\+([\d.]+) ms cpu, "
    r"(\d+)->(\d+)->(\d+) MB, (\d+) MB goal, (\d+) MB stacks, (\d+) MB globals, (\d+) P( \(forced\))?"
)


@pytest.mark.parametrize("line", GO_LINES)
def test_a_line_of_go_read_back_and_written_again_is_the_same(line):
    number, since, percent, *rest = LINE.fullmatch(line).groups()
    times = [round(float(text) * 1e6) for text in rest[:8]]
    sizes = [int(text) << 20 for text in rest[8:14]]
    # Half a percent more, because 0.29 * 100 is less than 29.
    fraction = (int(percent) + 0.5) / 100
    cycle = Cycle(
        int(number), round(float(since) * 1e9), fraction, *times, *sizes, int(rest[14]), forced=rest[15] is not None
    )
    assert format_cycle(cycle) == line
