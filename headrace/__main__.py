"""Where the process begins: `python -m headrace` is `headrace`."""

import signal

# Before the imports, which take a while: until a command takes over, Ctrl-C ends the process at once and without a
# traceback, for nothing is open yet.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from headrace.cli import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
