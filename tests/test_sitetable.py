"""Places in programs, read from shared memory while it changes."""

from __future__ import annotations

import pytest

from gomp.runtime.sitetable import Site, site_of


@pytest.mark.parametrize(("line", "number"), [("12", 12), ("", 0), ("²", 0), ("-1", 0), ("٣", 0), ("x", 0)])
def test_a_place_whose_line_is_no_number_has_none(monkeypatch: pytest.MonkeyPatch, line: str, number: int) -> None:
    monkeypatch.setattr("gomp.runtime.sitetable.text_of", lambda site: f"serve\nserver.py\n{line}")
    assert site_of(1) == Site("serve", "server.py", number)
