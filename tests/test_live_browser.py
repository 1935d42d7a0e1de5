"""The live page in a real Chromium: a real service, whose figures move, and whose settings change."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from contextlib import ExitStack

import httpx
import pytest
from browser import CHROMIUM, DRIVER, chromium, show_as
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from served import Service, environment_in

from gomp.service.live.feed import MAX_FOLLOWERS

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium here: apt-get install chromium chromium-driver"
)
PHONE, DESK = 400, 1200
TOKEN = "a-long-random-word"
CONFIG = """
name = "watched"
procs = 1
metrics_port = 0
max_heap = "256MiB"
memory_limit = "200MiB"
control = "tcp"
control_port = 0
control_token_file = "{token}"

[[programs]]
program = "mixed"
parameters = {{ rate = 400, live = "4MiB", stdlib_trees = false }}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory, compiled_kernels):
    directory = tmp_path_factory.mktemp("watched")
    token = directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    config = directory / "service.toml"
    config.write_text(CONFIG.format(token=token))
    made = Service(config, environment_in(directory))
    made.url = str(made.client.base_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def control_url(service):
    return re.search(r'data-control-url="([^"]+)"', service.client.get("/").text)[1]


@pytest.fixture(scope="module")
def driver():
    with chromium() as made:
        yield made


@pytest.fixture
def page(driver):
    yield Page(driver)
    assert [entry["message"] for entry in driver.get_log("browser")] == []


class Page:
    """What somebody sees of it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, width=DESK, scheme="light"):
        show_as(self.driver, width, scheme=scheme)
        self.driver.get(url)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        """What the first of them says, "" if there is none: looked at in one step, as rows come and go."""
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText.trim() ?? ''", selector
        )

    def newest_cycle(self):
        return int((self.text("#cycles th") or "0").split()[0])

    def wait(self, holds, seconds=30):
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: holds())

    def wait_for_figures(self):
        self.wait(lambda: "iB" in self.text("#heap-live"))

    def colours(self, selector):
        """How many different ones a canvas shows."""
        return self.driver.execute_script(
            """const canvas = document.querySelector(arguments[0]);
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size""",
            selector,
        )


def test_the_figures_move_and_everything_is_drawn(page, service):
    page.open(service.url)
    page.wait_for_figures()
    assert page.text("h1") == "gomp watched"
    live, cycles = page.text("#heap-live"), page.text("#cycle-count")
    page.wait(lambda: page.text("#heap-live") != live and page.text("#cycle-count") != cycles)
    page.wait(lambda: page.text("#state") in ("running", "marking"))
    assert (page.text("#gogc"), page.text("#limit"), page.text("#heap-limit")) == ("100", "200 MiB", "200 MiB")
    for chart in ("heap", "cpu", "pause"):
        page.wait(lambda chart=chart: page.colours(f"#{chart}-chart canvas") > 3)
    page.wait(lambda: page.colours("#map") > 2)
    assert re.match(r"[\d,]+ cells of .*: .* from the lowest address", page.text("#map-caption"))
    assert [row.text for row in page.driver.find_elements(By.CSS_SELECTOR, "#ps th")] == ["P0", "coordinator"]
    assert page.colours("#ps canvas") > 1
    newest = page.newest_cycle()
    page.wait(lambda: page.newest_cycle() > newest)


def test_all_metrics_are_listed_and_found_by_name_and_meaning(page, service):
    page.open(service.url)
    page.wait_for_figures()
    assert not page.find("#metrics-rows").is_displayed()
    page.find("#metrics summary").click()
    page.wait(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#metrics-rows tr")) > 100)
    page.find("#metrics-filter").send_keys("allocated total")
    shown = "#metrics-rows tr:not([hidden])"
    page.wait(lambda: page.text(f"{shown} th") == "go_memstats_alloc_bytes_total")
    assert "allocated so far" in page.find(f"{shown} th").get_attribute("title")
    page.wait(lambda: page.text(f"{shown} td:nth-child(3)").endswith("iB"))
    before = page.text(f"{shown} td:nth-child(2)")
    page.wait(lambda: page.text(f"{shown} td:nth-child(2)") != before)
    assert page.colours(f"{shown} canvas") > 1, "two rates make a line"
    page.find("#metrics-filter").clear()
    page.find("#metrics-filter").send_keys("no such words")
    page.wait(lambda: not page.driver.find_elements(By.CSS_SELECTOR, shown))


def test_every_figure_of_a_picture_is_there_as_text(page, service):
    page.open(service.url)
    page.wait_for_figures()
    page.wait(lambda: page.text("#cpu-figures").count("%") == 7)
    assert page.text("#memory-figures").count("iB") >= 3
    for picture in page.driver.find_elements(By.CSS_SELECTOR, "[role=img]"):
        assert len(picture.get_attribute("aria-label")) > 20
    for table in page.driver.find_elements(By.CSS_SELECTOR, "table"):
        assert table.find_elements(By.CSS_SELECTOR, "thead th[scope=col]")


def test_a_listener_of_metrics_says_how_settings_are_changed(page, service, control_url):
    page.open(service.url)
    page.wait(lambda: page.text("#commands"))
    assert f"gomp ctl gogc 200 --url {control_url.rstrip('/')} --token-file FILE" in page.text("#commands").split("\n")
    assert not page.find("#controls").is_displayed()
    assert page.find("#no-controls a").get_attribute("href") == control_url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, service, scheme):
    page.open(service.url, PHONE, scheme)
    page.wait_for_figures()
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == PHONE
    background = page.find("body").value_of_css_property("background-color")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 384) == (scheme == "light")
    page.wait(lambda: page.colours("#map") > 1)
    assert page.find(".ps .now").is_displayed()


def test_the_map_is_walked_by_keys(page, service):
    page.open(service.url)
    page.wait(lambda: "cells" in page.text("#map-caption"))
    page.find("#map").send_keys(Keys.ARROW_RIGHT)
    first = page.text("#map-cell")
    assert re.match(r"pages? \d+", first)
    page.find("#map").send_keys(Keys.ARROW_RIGHT)
    assert page.text("#map-cell") != first


def test_what_is_held_does_not_move(page, service):
    page.open(service.url)
    page.wait_for_figures()
    page.find("#hold").click()
    assert page.find("#hold").get_attribute("aria-pressed") == "true"
    held = page.text("#uptime"), page.text("#cycles")
    time.sleep(1.2)
    assert (page.text("#uptime"), page.text("#cycles")) == held
    page.find("#hold").click()
    page.wait(lambda: page.text("#uptime") != held[0])


def test_a_page_in_the_background_lets_go_of_its_stream_and_goes_on_when_it_is_looked_at(page, service):
    def is_there_room():
        return service.client.head("/live").status_code == 200

    url = service.client.base_url
    page.open("about:blank")
    time.sleep(0.5)  # what was open is closed
    with ExitStack() as others:
        for _ in range(MAX_FOLLOWERS - 1):
            other = others.enter_context(socket.create_connection((url.host, url.port)))
            other.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
        page.open(service.url)
        page.wait(lambda: not is_there_room())
        page.driver.minimize_window()
        page.wait(is_there_room)
        page.driver.set_window_rect(0, 0, DESK, 900)
        page.wait(lambda: not is_there_room())
    uptime = page.text("#uptime")
    page.wait(lambda: page.text("#uptime") != uptime)
    numbers = [row.text for row in page.driver.find_elements(By.CSS_SELECTOR, "#cycles th")]
    assert len(set(numbers)) == len(numbers), "what is told again is not shown again"


def test_time_of_which_nothing_was_heard_is_a_gap_and_no_ramp(page, service):
    """Readings say all, cycles in between only what is live; those that were told of afterwards fill the gap as far as they know."""
    page.open(service.url)

    def rows_of(*points):
        found = page.driver.execute_async_script(
            """const [points, done] = arguments;
            const shown = (key, value) => (value === undefined ? "unsaid" : value);
            import("/static/history.js").then(({ rowsOf }) => done(JSON.stringify(rowsOf(points, ["live", "mapped"]), shown)));""",
            points,
        )
        return json.loads(found)

    first, last = {"t": 1000, "live": 1, "mapped": 5}, {"t": 9000, "live": 4, "mapped": 8}
    assert rows_of(first, last | {"t": 2000}) == [[1000, 2000], [1, 4], [5, 8]]
    assert rows_of(first, last) == [[1000, 1001, 9000], [1, None, 4], [5, None, 8]]
    cycle = {"t": 3000, "live": 2}
    assert rows_of(first, cycle, last | {"t": 3500}) == [[1000, 3000, 3500], [1, 2, 4], [5, "unsaid", 8]]
    assert rows_of(first, cycle, last) == [[1000, 3000, 3001, 9000], [1, 2, None, 4], [5, None, None, 8]]


def test_each_cycle_from_before_the_page_was_opened_is_a_line(page, service):
    """Of which nothing but the cycle is known, for seconds before and after it."""
    page.open(service.url)
    page.wait_for_figures()
    cycles = 25
    lines = page.driver.execute_async_script(
        """const [cycles, done] = arguments;
        const chart = document.createElement("div");
        chart.id = "made-here";
        chart.style.height = "200px";
        const parent = document.body.appendChild(document.createElement("div"));
        parent.append(chart, Object.assign(document.createElement("p"), { className: "readout" }));
        import("/static/charts.js").then(({ HeapChart }) => {
          const starts = Array.from({ length: cycles }, (_, i) => 4000 + 4321.7 * i);
          const points = starts.flatMap((t) => [{ t, live: 90 << 20 }, { t: t + 5, live: 99 << 20 }, { t: t + 6, live: 40 << 20 }]);
          new HeapChart("made-here").update(points, 120_000);
          requestAnimationFrame(() => {
            const canvas = chart.querySelector("canvas");
            const { data } = canvas.getContext("2d").getImageData(0, canvas.height / 3, canvas.width, 1);
            const strong = Array.from({ length: canvas.width }, (_, x) => data[4 * x + 3] > 200);
            parent.remove();
            done(strong.filter((is, x) => is && !strong[x - 1]).length);
          });
        });""",
        cycles,
    )
    assert lines == cycles


def test_the_control_listener_tells_nothing_without_the_token(control_url):
    with httpx.Client(base_url=control_url) as client:
        assert client.get("/").status_code == client.get("/static/page.js").status_code == 200
        for path in ("/live", "/control", "/metrics", "/static/../live"):
            assert client.get(path).status_code in (401, 404)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with client.stream("GET", "/live", headers=headers) as answer:
            assert next(answer.iter_lines()) == "event: frame"


def test_a_wrong_token_is_told_so(driver, control_url):
    page = Page(driver)
    page.open(control_url)
    page.find("#token-word").send_keys("wrong", Keys.ENTER)
    page.wait(lambda: page.text("#token-error").startswith("this is not the token"))
    assert not page.find("#live").is_displayed()
    assert [entry for entry in driver.get_log("browser") if "401" not in entry["message"]] == []


def test_settings_are_changed_from_the_page_with_the_token(page, service, control_url):
    page.open(control_url, PHONE)
    page.find("#token-word").send_keys(TOKEN, Keys.ENTER)
    page.wait_for_figures()
    page.find("#set-gogc").send_keys("250", Keys.ENTER)
    page.wait(lambda: page.text("#control-answer") == "GOGC is 250 now; it was 100.")
    page.wait(lambda: page.text("#gogc") == "250")
    page.find("#set-limit").send_keys("150MiB", Keys.ENTER)
    page.wait(lambda: page.text("#control-answer") == "The memory limit is 150 MiB now; it was 200 MiB.")
    page.wait(lambda: page.text("#limit") == "150 MiB")
    page.find("[data-post=gc]").click()
    page.wait(lambda: page.text("#control-answer").startswith("Collected: "))
    page.wait(lambda: "forced" in page.text("#cycles"))
    assert service.samples()["go_gc_gogc_percent",] == 250


def test_a_setting_that_cannot_be_is_answered_with_a_sentence(driver, control_url):
    page = Page(driver)
    page.open(control_url)
    page.find("#token-word").send_keys(TOKEN, Keys.ENTER)
    page.wait_for_figures()
    page.find("#set-gogc").send_keys("much", Keys.ENTER)
    page.wait(lambda: 'write a whole percentage, or "off"' in page.text("#control-answer"))
    assert [entry for entry in driver.get_log("browser") if "422" not in entry["message"]] == []


def test_a_service_that_ends_is_missed(driver, service):
    """The last one: nobody answers afterwards."""
    page = Page(driver)
    page.open(service.url)
    page.wait_for_figures()
    service.end(signal.SIGTERM)
    page.wait(lambda: page.text("#state") == "connection lost")
    assert "iB" in page.text("#heap-live"), "what was known last stays"
    driver.get_log("browser")
