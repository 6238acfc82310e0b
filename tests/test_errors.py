"""No secret of an address may reach a person's screen or a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamgate.errors import one_line
from streamgate.redaction import redact_url, scrub

SECRETS = [
    ("rtsp://first.last:p%40ss@10.0.0.1:554/live", ["first.last", "p%40ss", "p@ss"]),
    ("rtsp://me@corp.com:secretpw@camera/live", ["me@corp.com", "secretpw"]),
    ("redis://:secretpw@localhost:6379/0", ["secretpw"]),
    ("rtsp://tokenonly@camera/live", ["tokenonly"]),
    ("http://camera/live?user=joe1&password=secretpw&channel=1", ["joe1", "secretpw"]),
    ("srt://camera:9000?mode=caller&passphrase=secretpw", ["secretpw"]),
    ("rtsp://joe1:secretpw@[2001:db8::1]:554/live", ["joe1", "secretpw"]),
    ("rtsp://joe1:secret/pw@camera/live", ["joe1", "secret/pw", "pw@"]),
    ("http://camera/live?token=secretpw#key=secretpw", ["secretpw"]),
    ("rediss://joe1:secretpw@host:1/0?ssl_cert_reqs=none", ["joe1", "secretpw"]),
    ("rtsp://camera/user=admin&password=secretpw&channel=1&stream=0.sdp", ["admin", "secretpw"]),
    ("rtsp://camera/user=admin_password=secretpw_channel=1_stream=0.sdp", ["admin", "secretpw"]),
]


@pytest.mark.parametrize(("url", "secrets"), SECRETS)
def test_redacted_addresses_hold_no_secret(url: str, secrets: list[str]) -> None:
    shown = redact_url(url)
    for secret in secrets:
        assert secret not in shown
    assert shown.startswith(url.partition("://")[0] + "://")


@pytest.mark.parametrize(("url", "secrets"), SECRETS)
def test_library_messages_are_scrubbed(url: str, secrets: list[str]) -> None:
    message = scrub(f"[Errno 111] cannot open '{url}': refused; tried {url}", url)
    for secret in secrets:
        assert secret not in message
    assert "refused" in message


def test_what_holds_no_secret_stays_readable() -> None:
    assert redact_url("rtsp://camera:554/live?channel=1") == "rtsp://camera:554/live?channel=1"
    assert redact_url("/home/me@work/a:b.mp4") == "/home/me@work/a:b.mp4"
    assert redact_url("rtsp://[2001:db8::1]:554/live") == "rtsp://[2001:db8::1]:554/live"
    assert redact_url("rtsp://camera/path/with@sign") == "rtsp://camera/path/with@sign"


def test_a_short_name_tears_no_word_apart() -> None:
    url = "redis://ann:all@host/0"
    told = scrub("cannot use it: ann:all, user=ann, ann%20all, (ann) refused at all", url)
    assert told == "cannot use it: ***, user=***, ***%20***, (***) refused at ***"


@pytest.mark.parametrize(
    "piece", ["a", "a=", "://", "x://", "x://a@", "http://u:p@h/a ", "user=a&", "_", ":", "@", "/", ";", "a@", "-", "x://["]
)
def test_scrubbing_takes_time_by_the_length_of_a_text_and_not_by_its_square(piece: str) -> None:
    """Measured against itself: eight times the text takes nowhere near 64 times as long."""

    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        began = time.thread_time()
        scrub(text, "rtsp://bob:longpassword@h/x?token=abcdefg")
        return time.thread_time() - began

    assert seconds(800_000) < 24 * max(seconds(100_000), 0.01)


def test_addresses_in_a_large_text_are_still_redacted() -> None:
    text = "x" * 300_000 + " rtsp://ann:pw12345@h/1 " + "y" * 300_000 + " http://h/?token=pw12345&a=1" + "z=" * 9000
    shown = scrub(text)
    assert "pw12345" not in shown and "ann" not in shown and "rtsp://***@h/1" in shown


def test_one_line_is_one_short_printable_line() -> None:
    shown = one_line("a\n\tb\x1b[31m" + "c" * 10_000, 50)
    assert len(shown) == 50 and shown.isprintable() and shown.startswith("a b\\x1b[31mccc") and shown.endswith("…")
    assert one_line("short and plain") == "short and plain"


def test_a_package_that_cannot_be_imported_is_named_with_the_version_that_works(tmp_path: Path) -> None:
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").write_text("raise ImportError('built for another FFmpeg', name='av')")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    command = [sys.executable, "-m", "streamgate", "run", str(tmp_path / "clip.mp4"), "-o", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "built for another FFmpeg" in ran.stderr and "pip install 'av<20,>=15'" in ran.stderr
