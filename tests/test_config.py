"""Options: Go's grammars, the precedence of sources, and one clear line for whatever is wrong."""

import json
import os
import platform
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomp import config
from gomp.config import GC_OFF, NO_LIMIT, Debug, RuntimeSettings, ServiceSettings, ignored, load, read_setting
from gomp.core.gc import goal
from gomp.errors import ConfigError

EXAMPLES = json.loads((Path(__file__).parent / "data/gctrace/format-examples.json").read_text())
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("GOMP_") or name in ("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path):
    def write(text):
        file = tmp_path / "service.toml"
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize("example", EXAMPLES["parse_byte_count"], ids=lambda e: repr(e["input"]))
def test_byte_counts_are_read_as_go_reads_them(example):
    assert config.parse_byte_count(example["input"]) == (example["value"] if example["ok"] else None)


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("100", 100), ("50", 50), ("0", 0), ("off", GC_OFF), ("-1", GC_OFF), ("-7", GC_OFF), ("", 100), ("abc", 100), ("1e2", 100),
        ("2147483647", 2147483647), ("2147483648", 100), ("50%", 100), ("OFF", 100), (" 50", 100), ("\u0665", 100),
    ],
)  # fmt: skip
def test_gogc_of_the_environment_is_read_as_go_reads_it(text, percent, monkeypatch):
    monkeypatch.setenv("GOGC", text)
    assert load(RuntimeSettings).gogc == percent


@pytest.mark.parametrize(
    ("text", "limit"), [("", NO_LIMIT), ("off", NO_LIMIT), ("0", 0), ("512MiB", 512 << 20), ("123", 123)]
)
def test_gomemlimit_of_the_environment(text, limit, monkeypatch):
    monkeypatch.setenv("GOMEMLIMIT", text)
    assert load(RuntimeSettings).memory_limit == limit


@pytest.mark.parametrize("text", ["1GB", "1.5GiB", "-1", "many", "1 GiB", "9223372036854775808"])
def test_a_malformed_gomemlimit_is_fatal(text, monkeypatch):
    monkeypatch.setenv("GOMEMLIMIT", text)
    with pytest.raises(ConfigError, match="malformed GOMEMLIMIT"):
        load(RuntimeSettings)


def test_numbers_of_any_length_are_read_as_go_reads_them(monkeypatch):
    long, padded = "9" * 5000, "0" * 5000 + "5"  # more digits than Python makes a number of
    assert config.parse_gogc(long) == 100
    assert config.parse_gogc(padded) == 5
    assert config.parse_byte_count(padded + "KiB") == 5120
    monkeypatch.setenv("GOMEMLIMIT", long)
    with pytest.raises(ConfigError, match="malformed GOMEMLIMIT"):
        load(RuntimeSettings)


@pytest.mark.parametrize("text", ["", "0", "-3", "two", "1.5"])
def test_a_gomaxprocs_that_is_no_positive_number_is_ignored(text, monkeypatch):
    monkeypatch.setenv("GOMAXPROCS", text)
    assert load(RuntimeSettings).procs == config.default_procs()


def test_gomaxprocs_sets_the_number_of_ps(monkeypatch):
    monkeypatch.setenv("GOMAXPROCS", "7")
    assert load(RuntimeSettings).procs == 7


def test_later_duplicates_in_godebug_win_and_the_unknown_is_ignored():
    assert config.parse_godebug("gctrace=1,nosuch=3,clobberfree,gctrace=2,gccollectevery=x,verify=3") == Debug(
        gctrace=2, verify=3
    )
    assert config.parse_godebug("") == Debug()
    assert config.parse_godebug("clobberfree=1,clobberfree=0") == Debug()


@given(st.text())
def test_no_text_breaks_the_parsers(text):
    config.parse_godebug(text)
    assert config.parse_gogc(text) >= GC_OFF
    assert (config.parse_byte_count(text) or 0) <= NO_LIMIT


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(monkeypatch, toml):
    file = toml("gogc = 10\nprocs = 3\nmetrics_port = 1234\n")
    assert load(ServiceSettings, file).gogc == 10
    monkeypatch.setenv("GOGC", "20")
    assert load(ServiceSettings, file).gogc == 20
    monkeypatch.setenv("GOMP_GOGC", "30")
    assert load(ServiceSettings, file).gogc == 30
    assert load(ServiceSettings, file, gogc=40, procs=None).gogc == 40
    settings = load(ServiceSettings, file)
    assert (settings.procs, settings.metrics_port, settings.metrics_host) == (3, 1234, "127.0.0.1")
    assert load(ServiceSettings).metrics_port == 6070  # the file of one call is not seen by the next


def test_an_empty_go_variable_leaves_the_file_in_force(monkeypatch, toml):
    monkeypatch.setenv("GOGC", "")
    assert load(RuntimeSettings, toml("gogc = 10")).gogc == 10


def test_sizes_are_written_with_units_and_heaps_are_whole_arenas(toml):
    settings = load(ServiceSettings, toml('max_heap = "100MiB"\nmemory_limit = "1GiB"\ngogc = "off"'))
    assert (settings.max_heap, settings.memory_limit, settings.gogc) == (128 << 20, 1 << 30, GC_OFF)
    assert load(RuntimeSettings).max_heap == 4 << 30


def test_programs_of_the_file_have_checked_parameters(toml):
    file = toml(
        '[[programs]]\nprogram = "mixed"\nparameters = { rate = 5, live = "8MiB", sizes = { "64" = 1 }, stdlib_trees = false }\n'
    )
    (mixed,) = load(ServiceSettings, file).programs
    assert mixed.parameters == {"rate": 5.0, "live": 8 << 20, "sizes": {64: 1.0}, "stdlib_trees": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gogc = \"abc\"", "gogc: write a whole percentage, or \"off\" (not 'abc')"),
        ("max_heap = \"5GB\"", "max_heap: write a whole number of bytes"),
        ("max_heap = 0", "max_heap: a heap has from 64MiB to 64TiB (not 0)"),
        ("max_heap = \"1KiB\"", "max_heap: a heap has from 64MiB to 64TiB (not '1KiB')"),
        ("memory_limit = \"1GB\"", "as 512MiB, or auto, or off (not '1GB')"),
        ("memory_limit = -1", "as 512MiB, or auto, or off (not -1)"),
        ("memory_limit_share = nan", "memory_limit_share: write a number above 0 up to 1 (not nan)"),
        ("memory_limit_share = inf", "memory_limit_share: write a number above 0 up to 1 (not inf)"),
        ("memory_limit_share = -1", "memory_limit_share: write a number above 0 up to 1 (not -1)"),
        ("max_procs = \"some\"", "max_procs: write a whole number from 1 up to 128 (not 'some')"),
        ("procs = 0", "procs: "),
        ("procs = 1000", "procs: "),
        ("metrics_port = 70000", "metrics_port: "),
        ("name = \"a b\"", "name: "),
        ("colour = 1", "colour: there is no such option"),
        ("log_level = \"loud\"", "log_level: "),
        ("[[programs]]\nprogram = \"mixed\"\nparameters = { rate = 0 }", "programs.0.rate: "),
        ("[[programs]]\nprogram = \"mixed\"\nparameters = { sizes = { \"64\" = 0 } }", "programs.0: sizes: "),
        ("[[programs]]\nprogram = \"mixed\"\nparameters = { speed = 1 }", "programs.0.speed: there is no such option"),
        ("[[programs]]\n", "programs.0.program: "),
        ("gogc = ", "is not valid TOML"),
        ("gogc = 3000000000.0", "gogc: a percentage is 2147483647 at most"),
        ("gogc = true", "gogc: true and false are no values of this option"),
        ("max_heap = 1.0", "max_heap: a heap has from 64MiB to 64TiB (not 1.0)"),
        ("memory_limit = -5.0", "as 512MiB, or auto, or off (not -5.0)"),
        ("procs = 0x" + "f" * 5000, "procs: write a whole number from 1 up to 128 (not a number of 20000 bits)"),
        ("name = \"" + "x" * 5000 + "\"", "name: String should match pattern"),
        ("pacer_tape = \"a\\u0000b\"", "pacer_tape: no file's name has a zero byte"),
        ("gogc = " + "[" * 5000, "lists and tables are nested too deeply: write fewer in one another"),
        ("[[programs]]\nprogram = \"mixed\"\nparameters = { sizes = { \"64\" = inf } }", "programs.0: sizes: "),
        ("\"\\r\" = 1", "'\\r': there is no such option"),
        ("[[programs]]\n" + "\n".join(f"x{n} = 1" for n in range(100)), "programs.0.x3: there is no such option; and 96 more"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_that_names_it(text, message, toml):
    with pytest.raises(ConfigError) as caught:
        load(ServiceSettings, toml(text))
    assert message in str(caught.value)
    assert str(caught.value).splitlines() == [str(caught.value)]
    assert len(str(caught.value)) < 500


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        load(ServiceSettings, tmp_path / "absent.toml")


@pytest.mark.parametrize("text", ["[", "[" * 5000])
def test_a_wrong_environment_variable_of_ours_is_one_line(text, monkeypatch):
    monkeypatch.setenv("GOMP_PROGRAMS", text)
    with pytest.raises(ConfigError, match="programs"):
        load(ServiceSettings)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load(RuntimeSettings).gogc = 5


def test_every_option_is_described():
    for kind in (ServiceSettings, config.MixedSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_the_files_in_configs_can_be_used():
    settings = load(ServiceSettings, ROOT / "configs/service.toml")
    assert [program.program for program in settings.programs] == ["mixed"]
    documented = tomllib.loads((ROOT / "configs/service.toml").read_text())
    assert set(documented) <= set(ServiceSettings.model_fields)


def test_this_machine_is_good_enough():
    config.check_system()


def test_an_old_kernel_a_free_threaded_python_and_another_system_are_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(platform, "release", lambda: "4.19.0-27-amd64")
        with pytest.raises(ConfigError, match=r"Linux 4\.19\.0-27-amd64 is too old: gomp needs 5\.4 or newer"):
            config.check_system()
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_config_var", lambda name: 1 if name == "Py_GIL_DISABLED" else None)
        with pytest.raises(ConfigError, match="free-threaded"):
            config.check_system()
    with monkeypatch.context() as patch:
        patch.setattr(platform, "system", lambda: "Darwin")
        with pytest.raises(ConfigError, match="runs on Linux"):
            config.check_system()


def test_reading_options_imports_no_compiler():
    code = "import sys, gomp.config; sys.exit('numba' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


# --- what is passed over ----------------------------------------------------------------------------------------------


def test_what_go_would_pass_over_is_told(monkeypatch):
    monkeypatch.setenv("GOGC", "abc")
    monkeypatch.setenv("GOMAXPROCS", "many")
    monkeypatch.setenv("GODEBUG", "gctrace=1,nope=1,scavtrace=x,")
    settings = load(RuntimeSettings)
    assert (settings.gogc, settings.debug.gctrace) == (100, 1)
    gogc, procs, unknown, unread = ignored(settings)
    assert gogc == "GOGC='abc' is no number and counts as 100, as in Go"
    assert procs.startswith("GOMAXPROCS='many' is no number of 1 or more")
    assert unknown.startswith("GODEBUG: nope=1 is ignored: the switches are gctrace, ")
    assert unread.startswith("GODEBUG: scavtrace=x is ignored")


@pytest.mark.parametrize(
    ("name", "value"), [("GOGC", "off"), ("GOGC", "50"), ("GOGC", ""), ("GOMAXPROCS", "2"), ("GODEBUG", "gctrace=1")]
)
def test_what_is_right_is_not_told(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert ignored(load(RuntimeSettings)) == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("gogc", "99999999999", "gogc: a percentage is 2147483647 at most"),
        ("gogc", 99999999999, "gogc: a percentage is 2147483647 at most"),
        ("procs", "-5", "procs: there is 1 P at least"),
        ("procs", "1000", "procs: no runtime has more than 128 Ps"),
    ],
)
def test_a_setting_out_of_range_is_told_in_our_words(name, value, sentence):
    with pytest.raises(ConfigError) as caught:
        read_setting(name, value)
    assert str(caught.value) == sentence


def test_the_core_means_the_same_by_no_limit():
    assert NO_LIMIT == goal.NO_LIMIT
