"""Runs an iterator in another thread, ahead of its consumer by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar, cast

Item = TypeVar("Item")


def prefetch(
    items: Iterator[Item], depth: int, *, timeout_s: float | None = None, late: BaseException | None = None
) -> Generator[Item, None, None]:
    """Yield the items of `items`, which another thread reads up to `depth` items ahead.

    An exception in `items` is raised here, after the items that came before it. When the caller stops early, the thread
    stops too and `items` is closed before this generator ends. When no item arrives for `timeout_s` seconds, the
    exception `late` is raised and the thread, which hangs in `items`, is abandoned.
    """
    ahead: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            try:
                ahead.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    break
            else:
                put(None, StopIteration())
        except BaseException as error:  # it is raised again in the consumer's thread
            put(None, error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="streamgate-decode", daemon=True)
    thread.start()
    hangs = False
    try:
        while True:
            try:
                item, error = ahead.get(timeout=timeout_s)
            except queue.Empty:
                hangs = True
                raise late or TimeoutError() from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield cast(Item, item)
    finally:
        stop.set()
        thread.join(timeout=0.1 if hangs else 10.0)
