"""A network namespace that reaches nothing, with a resolver that counts which names are asked for.

As a script, inside such a namespace: run the commands given as JSON lists, one argument each, and print what came of
them and which names were looked up. From a test: `looked_up(commands)`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
LIMIT_S = 120


@dataclass(frozen=True)
class Outcome:
    """Exit code of each command with what it wrote to stderr, and every name that was looked up meanwhile."""

    codes: list[int]
    errors: list[str]
    names: list[str]


def looked_up(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> Outcome:
    """Run `commands` one after another in a namespace of their own. Skips where there are none to be had."""
    texts = [json.dumps(list(command)) for command in commands]
    for unshare in (["unshare", "-nm"], ["unshare", "-rnm"]):
        if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
            # Bytes, not lines: what the commands print must not be taken for the answer.
            with tempfile.NamedTemporaryFile() as answer:
                ran = subprocess.run(
                    [*unshare, sys.executable, __file__, answer.name, *texts],
                    capture_output=True, text=True, env=environment, timeout=LIMIT_S * len(texts),
                )  # fmt: skip
                assert ran.returncode == 0, ran.stderr
                return Outcome(**json.loads(answer.read()))
    pytest.skip("this machine does not allow network namespaces (unshare -n)")


def _inside(answer: str, *texts: str) -> None:
    _loopback_up()
    names: list[str] = []
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))
    threading.Thread(target=_answer, args=(resolver, names), daemon=True).start()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        settings.flush()
        # The mount is seen in this namespace alone.
        subprocess.run(["mount", "--bind", settings.name, os.path.realpath("/etc/resolv.conf")], check=True)
        ran = [subprocess.run(json.loads(text), capture_output=True, text=True, timeout=LIMIT_S) for text in texts]
    outcome = Outcome([one.returncode for one in ran], [one.stderr for one in ran], names)
    with open(answer, "w") as file:
        json.dump(vars(outcome), file)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _answer(resolver: socket.socket, names: list[str]) -> None:
    """Note each name asked for and answer that there is no such name."""
    while True:
        question, sender = resolver.recvfrom(2048)
        name, at = [], 12
        while question[at]:
            name.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
            at += 1 + question[at]
        names.append(".".join(name))
        resolver.sendto(question[:2] + b"\x81\x83" + question[4:6] + bytes(6) + question[12 : at + 5], sender)


if __name__ == "__main__":
    _inside(*sys.argv[1:])
