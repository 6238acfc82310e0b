"""`python -m streamgate` is the same as `streamgate`."""

from __future__ import annotations

from streamgate.cli import main

if __name__ == "__main__":
    main()
