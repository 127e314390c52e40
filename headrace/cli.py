"""The command line: runs a command, and says what went wrong in a sentence.

Exit codes: 0 fine, 1 it failed while running, 2 the config or the call is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from headrace import output
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
    output.prepare()
    top = parser()
    options = top.parse_args(arguments)
    if options.version:
        return _guarded(_version, options)
    if options.command is None:
        top.print_help(sys.stderr)
        return MISUSED
    from headrace import logs

    logs.start(options.log_format, options.log_level)
    return _guarded(options.run, options)


def _version(_options: argparse.Namespace) -> int:
    from agent import _native

    print(f"headrace {_native.__version__}")
    return FINE


def _guarded(run: Command, options: argparse.Namespace) -> int:
    """What went wrong as a sentence and an exit code; a traceback only for our own mistakes."""
    from agent.errors import ConfigError, HeadraceError
    from headrace.progress import Misused

    try:
        code = run(options)
        sys.stdout.flush()  # what is left in it would fail after us, without a word
    except ConfigError as wrong:
        count = len(wrong.problems)
        code = _said(f"{wrong}\n{count} problem{'s' * (count != 1)}", MISUSED)
    except HeadraceError as failed:
        code = _said(f"headrace: {failed}", MISUSED if isinstance(failed, Misused) else FAILED)
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if (extra := EXTRAS.get(package)) is None:
            raise
        code = _said(f"headrace: {package} is not installed; write: pip install 'headrace[{extra}]'", FAILED)
    except BrokenPipeError:
        # The reader of our output went away (`headrace query ... | head`): nothing is wrong.
        output.discard()
        code = FINE
    except OSError as reason:
        if reason.filename is not None:
            code = _said(f"headrace: {reason.filename}: {reason.strerror}", FAILED)
        elif reason.errno in output.FULL:
            output.discard()
            code = _said(f"headrace: the output can't be written: {reason.strerror}", FAILED)
        else:
            raise
    return code


def _said(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
