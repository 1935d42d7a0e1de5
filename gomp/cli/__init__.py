"""The command line: reads what was asked, hands it on, and says in one line what was wrong with it.

Exit codes: 0 done · 1 the program or the runtime failed · 2 the request was wrong · 3 the heap is corrupt · 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from gomp.cli import controlling, looking, replaying, running
from gomp.cli.output import EXIT_CORRUPT, EXIT_FAILED, EXIT_USAGE, fail
from gomp.config import check_system
from gomp.errors import ConfigError, GompError, HeapCorrupt, ProgramError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(running.serve)
app.command()(running.run)
app.command()(running.demo)
app.command()(running.stress)
app.command()(running.kernels)
app.command(name="ls")(looking.list_)
app.command()(looking.top)
app.command()(looking.trace)
app.command()(looking.gctrace)
app.command()(looking.verify)
app.add_typer(controlling.ctl, name="ctl")
app.add_typer(replaying.pacer, name="pacer")


@app.callback(help="Go's memory system as a multi-process Python runtime.")
def _options(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """The options of ``gomp`` itself; --version is answered before anything is parsed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``gomp`` command. Ends the process."""
    # Importing numpy would start a thread, and the coordinator must have only one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code; whatever went wrong is on stderr."""
    if "--version" in arguments[:1]:
        print(f"gomp {metadata.version('gomp')}")
        return 0
    try:
        check_system()
        return app(list(arguments) or ["--help"], prog_name="gomp", standalone_mode=False) or 0
    except ConfigError as error:
        return fail(str(error), EXIT_USAGE)
    except HeapCorrupt as error:
        return fail(f"the heap is corrupt: {error}", EXIT_CORRUPT)
    except GompError as error:
        sys.stderr.write(error.remote_traceback if isinstance(error, ProgramError) else "")
        return fail(str(error) or type(error).__doc__ or type(error).__name__, EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail(f"the output cannot be written: {error.strerror}", EXIT_USAGE)
    except Exception as error:
        # Typer's usage errors, by what they can do: where their class lives depends on its version.
        if hasattr(error, "format_message"):
            return fail(error.format_message(), EXIT_USAGE)
        from gomp.runtime.programs import RemoteTraceback

        if not isinstance(error.__cause__, RemoteTraceback):
            raise
        # What a program raised comes with the traceback of the P where it ran; ours says nothing more.
        print(str(error.__cause__).strip().strip('"').strip(), file=sys.stderr)
        return fail(f"the program raised {type(error).__name__}: {error}", EXIT_FAILED)
