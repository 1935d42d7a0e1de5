"""docs/benchmarks.md, a section at a time."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def put_section(name: str, title: str, table: str) -> None:
    """Put ``table``, which ``python -m benchmarks.<name>`` has made, between the two marks of its section; behind all others if there is none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text, section = PAGE.read_text(), f"{begin}\n{table}\n{end}"
    if begin in text:
        text = re.sub(f"{begin}.*{end}", lambda _: section, text, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n## {title}\n\n`python -m benchmarks.{name}` writes this table.\n\n{section}\n"
    PAGE.write_text(text)
