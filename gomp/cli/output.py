"""What all commands say in the same way, and with which exit codes they end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

EXIT_FAILED, EXIT_USAGE, EXIT_CORRUPT, EXIT_INTERRUPTED = 1, 2, 3, 130


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest entry."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fail(message: str, code: int) -> int:
    """Say what was wrong, in one line; the exit code."""
    print(f"gomp: {' '.join(message.split())}", file=sys.stderr)
    return code
