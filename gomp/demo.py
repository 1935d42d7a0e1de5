"""``gomp demo``: a pathology as a service, with the page that shows it."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import time
import webbrowser
from types import ModuleType
from typing import Any

import httpx

from gomp.config import ServiceSettings, load
from gomp.errors import ConfigError
from gomp.service.process import url_of

_PACKAGE = "workers.scenarios"
_HELPERS = {"live"}
_DEADLINE_S, _NAP_S = 900.0, 0.2  # kernels may have to be compiled first


def scenarios() -> dict[str, ModuleType]:
    """By name."""
    package = importlib.import_module(_PACKAGE)
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__) if found.name not in _HELPERS)
    return {name: importlib.import_module(f"{_PACKAGE}.{name}") for name in names}


def summary_of(scenario: ModuleType) -> str:
    return (scenario.__doc__ or "").partition("\n")[0]


def settings_of(scenario: str, seconds: float, **flags: Any) -> ServiceSettings:
    """Of a service that runs the scenario, with what was given of its other options. ConfigError if there is none of that name."""
    found = scenarios()
    if scenario not in found:
        raise ConfigError(f"there is no scenario {scenario}; there are {', '.join(found)}")
    program = {"program": f"scenarios.{scenario}", "parameters": {"seconds": seconds}}
    return load(ServiceSettings, None, programs=[program], **found[scenario].SETTINGS, **flags)


def open_page_later(settings: ServiceSettings) -> None:
    """Have a browser show it as soon as it answers, if there is a screen. In a process: the coordinator's has one thread."""
    url = url_of(settings.metrics_host, settings.metrics_port)
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        subprocess.Popen([sys.executable, "-m", "gomp.demo", url])


def _open_page(url: str) -> None:
    deadline, coordinator = time.monotonic() + _DEADLINE_S, os.getppid()
    while time.monotonic() < deadline and os.getppid() == coordinator:
        try:
            httpx.get(url, timeout=1, trust_env=False)  # it is on this machine: no proxy leads there
        except httpx.TransportError:
            time.sleep(_NAP_S)
        else:
            webbrowser.open(url)
            return


if __name__ == "__main__":
    _open_page(sys.argv[1])
