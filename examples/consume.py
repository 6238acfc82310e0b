"""Consume the best faces that `streamgate serve` sends to Redis, and process each `final` event exactly once.

    python examples/consume.py redis://localhost:6379/0 faces/ [--group faces] [--name worker-1] [--improved]

Delivery is at least once: after a broken connection or a restart, an event may be sent again with the same `id`. Three
things ensure that this program processes it only once:

* a consumer group: several workers share the stream, and each entry stays pending until it is acknowledged; after a
  minute, entries that a dead worker left pending are claimed by another worker;
* idempotent work: files are named after track and rank, and are put in place by a rename;
* an id is marked as seen in the same transaction that acknowledges its entry, and seen ids are skipped.

One line per face is printed to stdout (`id`, `quality`, `file`); its picture and record are written to the folder. With
--improved, the best faces so far of tracks that have not ended are written too; the track's `final` events replace
them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

STREAM = "streamgate:faces"
SEEN_DAYS = 7
CLAIM_AFTER_MS = 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stream", default=STREAM)
    parser.add_argument("--group", default="faces")
    parser.add_argument("--name", default=f"worker-{os.getpid()}")
    parser.add_argument("--improved", action="store_true", help="also take `improved` events, of tracks not ended yet")
    parser.add_argument("--claim-after-ms", type=int, default=CLAIM_AFTER_MS, help="claim entries pending this long")
    parser.add_argument("--until-idle", type=float, metavar="S", help="end after S seconds without an event")
    arguments = parser.parse_args()
    consumer = Consumer(arguments)
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    signal.signal(signal.SIGINT, lambda *_: consumer.stop())
    consumer.run()


class Consumer:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._options = arguments
        self._client = redis.Redis.from_url(arguments.url, socket_timeout=10)
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        idle = 0.0
        ready = False
        while not self._stopping:
            try:
                if not ready:
                    self._make_group()
                    ready = True
                entries = self._claimed() or self._new()
                for number, fields in entries:
                    self._take(number, fields)
                idle = 0.0 if entries else idle + 1.0
            except (ConnectionError, TimeoutError) as error:
                print(f"no connection to Redis ({type(error).__name__}), retrying", file=sys.stderr)
                ready = False
                idle += 1.0
                time.sleep(1.0)
            if self._options.until_idle is not None and idle >= self._options.until_idle:
                return

    def _make_group(self) -> None:
        try:
            # From "0": include entries that were sent before the first consumer started.
            self._client.xgroup_create(self._options.stream, self._options.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _claimed(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries that a worker (perhaps this one before a restart) received and never finished."""
        options = self._options
        answer = self._client.xautoclaim(
            options.stream, options.group, options.name, min_idle_time=options.claim_after_ms, count=16
        )
        return [(number, fields) for number, fields in answer[1] if fields]

    def _new(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        options = self._options
        answer = self._client.xreadgroup(
            options.group, options.name, {options.stream: ">"}, count=16, block=1000
        )  # fmt: skip
        return answer[0][1] if answer else []

    def _take(self, number: bytes, fields: dict[bytes, bytes]) -> None:
        event_id = fields[b"id"].decode()
        seen = f"{self._options.stream}:seen:{self._options.group}:{event_id}"
        wanted = fields[b"kind"] == b"final" or self._options.improved
        line = None
        if wanted and not self._client.exists(seen):
            line = self._keep(event_id, json.loads(fields[b"json"]), fields.get(b"jpeg"))
        with self._client.pipeline(transaction=True) as together:
            together.set(seen, 1, ex=SEEN_DAYS * 86400)
            together.xack(self._options.stream, self._options.group, number)
            together.execute()
        if line is not None:
            print(json.dumps(line), flush=True)

    def _keep(self, event_id: str, record: dict[str, Any], jpeg: bytes | None) -> dict[str, Any]:
        """Write the picture and the record; a `final` event replaces the `improved` face of its track and rank."""
        source, epoch, track, kind, rank, _ = event_id.rsplit("/", 5)
        name = "_".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in (source, epoch, track, rank))
        record_file = self._options.folder / f"{name}.json"
        line = {"id": event_id, "quality": record["quality"], "reasons": record["gate"]["reasons"], "file": None}
        if kind == "improved" and record_file.exists() and "/final/" in json.loads(record_file.read_text())["id"]:
            return line
        self._options.folder.mkdir(parents=True, exist_ok=True)
        if jpeg is not None:
            line["file"] = f"{name}.jpg"
            self._put(self._options.folder / f"{name}.jpg", jpeg)
        self._put(record_file, json.dumps(record, indent=2).encode())
        return line

    @staticmethod
    def _put(path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        os.replace(temporary, path)


if __name__ == "__main__":
    main()
