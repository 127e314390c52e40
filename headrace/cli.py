"""The command line: runs a command, and says what went wrong in a sentence.

Exit codes: 0 fine, 1 it failed while running, 2 the config or the call is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from headrace.commands import Command, parser

FINE, FAILED, MISUSED = 0, 1, 2

EXTRAS = {
    "duckdb": "datacenter",
    "pyarrow": "datacenter",
    "starlette": "datacenter",
    "uvicorn": "datacenter",
    "rich": "demo",
    "aiohttp": "resolver",
}
"""Which extra of the package brings a library that a plain install does not have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code."""
    top = parser()
    options = top.parse_args(arguments)
    if options.version:
        from agent import _native

        print(f"headrace {_native.__version__}")
        return FINE
    if options.command is None:
        top.print_help(sys.stderr)
        return MISUSED
    from headrace import logs

    logs.start(options.log_format, options.log_level)
    return _guarded(options.run, options)


def _guarded(run: Command, options: argparse.Namespace) -> int:
    """What went wrong as a sentence and an exit code; a traceback only for our own mistakes."""
    from agent.errors import ConfigError, HeadraceError
    from headrace.progress import Misused

    try:
        return run(options)
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        print(f"{len(wrong.problems)} problem{'s' * (len(wrong.problems) != 1)}", file=sys.stderr)
        return MISUSED
    except HeadraceError as failed:
        print(f"headrace: {failed}", file=sys.stderr)
        return MISUSED if isinstance(failed, Misused) else FAILED
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if (extra := EXTRAS.get(package)) is None:
            raise
        print(f"headrace: {package} is not installed; write: pip install 'headrace[{extra}]'", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of our output went away (`headrace query ... | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except OSError as reason:
        if reason.filename is None:
            raise
        print(f"headrace: {reason.filename}: {reason.strerror}", file=sys.stderr)
        return FAILED
