"""`streamgate` and `python -m streamgate`."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the part of `signal` that takes no time to import

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # Until the command line is imported, there is nothing to clean up and no code that could report an interrupt.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from streamgate.cli import main

if __name__ == "__main__":
    main()
