"""``/debug/pprof/`` as a page: what there is, how much of it, and where. It is as easily read with ``curl``."""

from __future__ import annotations

from html import escape

from gomp.service.profiles import PROFILES

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>/debug/pprof/ of {name}</title>
<pre>
profiles of {name}

   count  profile
"""
_OTHERS = """
          <a href="goroutine?debug=2">full goroutine stack dump</a>
          <a href="profile?seconds=30">profile</a>        CPU time, of programs and of the collector, by P, for seconds=30
          <a href="../trace?seconds=5">trace</a>          what each P does, for seconds=5; opens in ui.perfetto.dev
          <a href="cmdline">cmdline</a>        how the runtime was started

What is linked with debug=1 or 2 is a text. Without it is what go tool pprof reads; with seconds=N what has come in that time.
</pre>
"""


def page(name: str) -> bytes:
    """The page of the runtime called ``name``."""
    lines = [
        f'{profile.count():>8}  <a href="{which}?debug=1">{which}</a>{" " * (15 - len(which))}{escape(profile.about)}\n'
        for which, profile in sorted(PROFILES.items())
    ]
    return (_HEAD.format(name=escape(name)) + "".join(lines) + _OTHERS).encode()
