"""What ``gomp top`` makes of two readings: rates, rows of metrics, and lines that fit the screen."""

from __future__ import annotations

import copy
import math

import pytest

from gomp.cgroup import MemoryCgroup
from gomp.errors import ConfigError
from gomp.runtime import reading
from gomp.runtime.metrics.description import Metric, Summary
from gomp.runtime.metrics.histograms import TIME_BUCKETS, Float64Histogram
from gomp.runtime.metrics.samples import matching, quantile, rows
from gomp.runtime.metrics.table import TABLE
from gomp.top import metrics, view
from gomp.top.command import lines_of
from gomp.top.figures import format_count, format_mib, format_rate, format_share, format_value
from gomp.top.readings import Reading, rates_between

MIB = 1 << 20


@pytest.fixture
def figures(mapped):
    """As two Ps and the coordinator have them that have not done anything."""
    for idx in (0, 1, reading.layout.COORDINATOR_P):
        reading.memstats._p_record(idx).xpid = 7
    return reading.read(["rmi", "psi"], -1, MemoryCgroup([]))


def with_ps(figures, n):
    """The same with ``n`` Ps before the coordinator."""
    p, coordinator = figures["ps"][0], figures["ps"][-1]
    return figures | {"ps": [p | {"name": f"P{i}"} for i in range(n)] + [coordinator]}


def cycle(number, figures, **fields):
    size = {"heap_start": 50 * MIB, "heap_end": 60 * MIB, "heap_marked": 30 * MIB, "goal": 61 * MIB}
    at = {"start": 0.0, "mark": 1.0, "term": 4.0, "end": figures["now"] - 1000 * (9 - number)}
    ns = {"pause_ns": 80_000, "assist_ns": 10**6, "background_ns": 2 * 10**6, "idle_ns": 0}
    return {"number": number, "forced": False} | at | ns | size | fields


def reading_of(figures, cycles=(), samples=None):
    lately = {p["name"]: "rrrpmi" * 20 for p in figures["ps"]}
    return Reading("name", 1.0, figures, rates_between(figures, figures), cycles, lately, samples)


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rates_are_of_a_second_and_shares_of_what_there_was(figures):
    now = copy.deepcopy(figures)
    now["uptime_s"] += 2.0
    now["cycles"]["count"] += 6
    now["heap"]["allocated"] += 5 * MIB
    now["cpu"]["available"] += 4 * 10**9  # of two Ps
    now["cpu"]["assists"] += 10**9
    now["ps"][1]["mark_s"] += 0.5
    rates = rates_between(figures, now)
    assert rates["cycles"] == pytest.approx(3)
    assert rates["allocated"] == pytest.approx(2.5 * MIB)
    assert rates["cpu"]["assists"] == pytest.approx(0.25)
    assert rates["ps"]["P1"] == pytest.approx({"mark": 0.25, "assist": 0, "sweep": 0, "stopped": 0})


def test_what_has_gone_back_a_little_stands_still_and_who_has_come_has_done_nothing(figures):
    now = with_ps(figures, 3)
    now["uptime_s"] += 1.0
    now["cpu"] = now["cpu"] | {"assists": figures["cpu"]["assists"] - 5}
    rates = rates_between(figures, now)
    assert rates["cpu"]["assists"] == 0
    assert rates["ps"]["P2"]["mark"] == 0


# --- the view ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ps", [1, 2, 16, 256])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 50), (300, 100), (40, 10), (1, 1)])
def test_it_fills_the_screen_and_no_more(figures, ps, width, height):
    shown = with_ps(figures, ps)
    lines = view.of_reading(reading_of(shown, [cycle(n, shown) for n in range(1, 9)]), width, height)
    assert len(lines) == height
    if width >= 80:
        assert max(line.cell_len for line in lines) <= width


def test_with_many_ps_it_says_how_many_are_not_shown_and_has_some_cycles_still(figures):
    shown = with_ps(figures, 64)
    text = [line.plain for line in view.of_reading(reading_of(shown, [cycle(n, shown) for n in range(1, 9)]), 80, 24)]
    assert sum(line.startswith("P") for line in text) == 1 + 6
    assert "… and 59 more" in text
    assert [line.split()[0] for line in text[-5:-1]] == ["CYCLE", "8", "7", "6"]


def test_without_a_height_it_has_all_ps(figures):
    text = [line.plain for line in view.of_reading(reading_of(with_ps(figures, 64)), 80, None)]
    assert sum(line.startswith("P") for line in text) == 1 + 64
    assert not any("CYCLE" in line for line in text), "there was none"


def test_the_bar_of_the_heap_is_drawn_to_scale(figures):
    figures["heap"] |= {"live": 40 * MIB, "marked": 20 * MIB, "trigger": 60 * MIB, "goal": 80 * MIB}
    words, bar = (line.plain for line in view.of_reading(reading_of(figures), 81, 24)[1:3])
    assert words == "heap   40 MiB live · 20 MiB marked · trigger 60 MiB · goal 80 MiB"
    assert bar == "█" * 20 + "▒" * 20 + "·" * 20 + "T" + "·" * 18 + "G"


def test_a_heap_beyond_its_goal_fills_the_bar_and_one_without_a_goal_says_so(figures):
    figures["heap"] |= {"live": 40 * MIB, "marked": 20 * MIB, "trigger": 30 * MIB, "goal": 30 * MIB}
    assert view.of_reading(reading_of(figures), 81, 24)[2].plain == "█" * 40 + "▒" * 20 + "G" + "▒" * 19
    figures["heap"] |= {"trigger": None, "goal": None}
    words, bar = (line.plain for line in view.of_reading(reading_of(figures), 81, 24)[1:3])
    assert words.endswith("trigger none · goal none")
    assert bar == "█" * 40 + "▒" * 40


def test_the_bar_of_memory_is_a_share_of_the_limit(figures):
    figures["settings"]["memory_limit"] = 80 * MIB
    classes = {"objects": 20, "unused": 10, "stacks": 5, "free": 5, "metadata": 0}
    figures["memory"] |= {name: n * MIB for name, n in classes.items()} | {"mapped": 40 * MIB, "released": 3 * MIB}
    figures["container"] = {"usage": 90 * MIB, "limit": 128 * MIB}
    words, bar, key = (line.plain for line in view.of_reading(reading_of(figures), 81, 24)[3:6])
    assert words == "memory 40 MiB mapped of 80 MiB · 3 MiB returned · container 90 MiB of 128 MiB"
    assert bar == "█" * 20 + "▓" * 10 + "▒" * 5 + "░" * 5 + "·" * 40
    assert key == "█ objects 20.0 ▓ unused 10.0 ▒ stacks 5.00 ░ free 5.00 ▚ metadata 0 MiB"


def test_what_was_released_and_is_in_memory_still_is_not_called_returned(figures):
    figures["memory"] |= {"mapped": 16 * MIB, "released": 320 * MIB, "lingering": 316 * MIB}
    words = view.of_reading(reading_of(figures), 81, 24)[3].plain
    assert words.startswith("memory 16 MiB mapped · 4 MiB returned · 316 MiB lingering")


def test_the_head_says_what_was_set_and_whether_the_limiter_is_on(figures):
    figures["settings"] |= {"gogc": None, "memory_limit": 512 * MIB, "memory_limit_is_auto": True, "procs": 4}
    figures |= {"state": "marking", "uptime_s": 75.0}
    assert view.head(reading_of(figures)).plain == "name  marking  up 1 min 15 s  4 Ps  GOGC off  limit 512 MiB (auto)"
    figures["cycles"]["is_limited"] = True
    assert "CPU LIMITER ON" in view.head(reading_of(figures)).plain


def test_the_latest_cycle_comes_first(figures):
    cycles = [cycle(1, figures), cycle(2, figures, forced=True, goal=None)]
    last, first = (line.plain for line in view.of_reading(reading_of(figures, cycles), 80, None)[-3:-1])
    assert " ".join(last.split()) == "2 7 s 80 µs 3 ms 3 ms 50.0 → 60.0 → 30.0 none forced"
    assert " ".join(first.split()) == "1 8 s 80 µs 3 ms 3 ms 50.0 → 60.0 → 30.0 61.0"


# --- metrics ----------------------------------------------------------------------------------------------------------


def metric(name, kind, label=""):
    return Metric(name, kind, "", lambda s: None, label)


HISTOGRAM = Float64Histogram(tuple(50 if i in (1, 5) else 0 for i in range(len(TIME_BUCKETS) - 1)), TIME_BUCKETS, 0.001)


def test_patterns_fit_go_s_name_or_prometheus_s_and_each_metric_comes_once():
    assert [m.name for m in matching(["/gc/heap/live*", "go_gc_heap_live_bytes"])] == ["/gc/heap/live:bytes"]
    assert matching(["*"]) == list(TABLE)
    assert matching([]) == []
    with pytest.raises(ConfigError, match="no metric is called 'go_nothing'"):
        matching(["*", "go_nothing"])


def test_a_counter_has_a_rate_and_a_histogram_that_of_its_count():
    counter, gauge, times = metric("a_total", "counter"), metric("b", "gauge"), metric("/c:seconds", "histogram")
    more = Float64Histogram(tuple(2 * n for n in HISTOGRAM.counts), TIME_BUCKETS, 0.002)
    found = rows(
        {(counter, ""): 30, (gauge, ""): 7, (times, ""): more, (counter, "new"): 1},
        {(counter, ""): 10, (gauge, ""): 5, (times, ""): HISTOGRAM},
        4.0,
    )
    assert [row.rate for row in found] == [5.0, None, 25.0, None]


def test_a_quantile_is_the_upper_bound_of_its_bucket():
    assert quantile(HISTOGRAM, 0.5) == TIME_BUCKETS[2]
    assert quantile(HISTOGRAM, 0.51) == quantile(HISTOGRAM, 1.0) == TIME_BUCKETS[6]
    beyond = Float64Histogram((0, 3), (0.0, 8.0, math.inf), 1.0)
    assert quantile(beyond, 0.5) == 8.0
    assert quantile(Float64Histogram((0,), (0.0, math.inf), 0.0), 0.5) == 0.0


def test_what_has_several_figures_has_a_line_for_each(figures):
    pauses = Summary((("0", 1e-5), ("1", 2e-3)), 0.5, 4000)
    samples = {
        (metric("/sched/x:seconds", "histogram"), ""): HISTOGRAM,
        (metric("go_gc_duration_seconds", "summary"), ""): pauses,
        (metric("gomp_p_stops_total", "counter", "p"), "0"): 1234567,
        (metric("/sched/none:seconds", "histogram"), ""): Float64Histogram((0,), (0.0, math.inf), 0.0),
    }
    reading = reading_of(figures, samples=rows(samples, samples, 1.0))
    lines = [line.plain.split(maxsplit=1) for line in lines_of(reading, 80, 24)[2:]]
    assert [" ".join(" ".join(line).split()) for line in lines] == [
        "VALUE RATE METRIC",
        "<0.064 µs /sched/x:seconds p50",
        "<0.32 µs /sched/x:seconds p99",
        "100 0/s /sched/x:seconds count",
        "10 µs go_gc_duration_seconds p0",
        "2 ms go_gc_duration_seconds p100",
        "4,000 0/s go_gc_duration_seconds count",
        "1,234,567 0/s gomp_p_stops_total{p=0}",
        "0 0/s /sched/none:seconds count",
    ]
    assert [line.plain for line in lines_of(reading_of(figures, samples=[]), 80, 24)[2:]] == ["VALUE  RATE  METRIC"]
    assert len(metrics.of_rows(reading.metrics, 5)) == 5
    assert metrics.of_rows(reading.metrics, 5)[-1].plain.startswith("… and 5 more")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_count(0), "0"), (format_count(0.25), "0.25"), (format_count(9999), "9,999"), (format_count(12_345), "12.3 k"),
        (format_count(5.2e6), "5.2 M"), (format_count(7e12), "7 T"),
        (format_share(0.0003), "0.0%"), (format_share(0.0994), "9.9%"), (format_share(0.0999), "10%"), (format_share(1), "100%"),
        (format_mib(None), "none"),
        (format_mib(3 * MIB // 2), "1.50"), (format_mib(0), "0"), (format_mib(99.99 * MIB), "100"), (format_mib(12345 * MIB), "12345"),
        (format_value((1 << 63) - 1, "bytes"), "none"), (format_value(8946670875695453929, "bytes"), "none"),
        (format_value(2 * MIB, "bytes"), "2 MiB"), (format_value(0.25, "cpu-seconds"), "250 ms"),
        (format_value(1e9, "seconds", "process_start_time_seconds")[:5], "2001-"), (format_value(1234567, "objects"), "1,234,567"),
        (format_rate(2 * MIB, "bytes"), "2 MiB/s"), (format_rate(0.25, "cpu-seconds"), "250 ms/s"), (format_rate(3, "gc-cycles"), "3/s"),
    ],
)  # fmt: skip
def test_figures_are_short(text, expected):
    assert text == expected
