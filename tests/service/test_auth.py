"""Token, sessions, the brake on guessing, hosts."""

from __future__ import annotations

import pytest

from streamgate.errors import UsageError
from streamgate.service.auth import (
    SESSION_SECONDS,
    Access,
    bearer_of,
    checked_token,
    host_allowed,
    is_loopback,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_fits_itself_alone() -> None:
    access = Access("s3cret-tökén")
    assert access.token_fits("s3cret-tökén")
    for wrong in ("", "s3cret", "s3cret-tökén ", "S3CRET-TÖKÉN", "\udcff"):
        assert not access.token_fits(wrong)


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError):
        Access("")


def test_a_session_does_not_hold_the_token_and_each_is_its_own() -> None:
    access = Access("a-rather-long-token")
    one, other = access.new_session(), access.new_session()
    assert one != other and "a-rather" not in one + other
    assert access.session_fits(one) and access.session_fits(other)


def test_a_session_outlives_a_restart_but_not_another_token() -> None:
    session = Access("token one").new_session()
    assert Access("token one").session_fits(session)
    assert not Access("token two").session_fits(session)


def test_a_session_runs_out_and_cannot_be_prolonged() -> None:
    clock = Clock()
    access = Access("token", clock)
    session = access.new_session()
    clock.now += SESSION_SECONDS - 1
    assert access.session_fits(session)
    clock.now += 2
    assert not access.session_fits(session)
    expires, rest = session.split(".", 1)
    assert not access.session_fits(f"{int(expires) + 1000}.{rest}")


@pytest.mark.parametrize("forged", ["", ".", "..", "9999999999.x.y", "a.b.c.d", "9999999999..", "é.é.é", "\x00"])
def test_what_is_no_session_is_refused(forged: str) -> None:
    assert not Access("token").session_fits(forged)


def test_guessing_is_slowed_down_for_the_one_who_guesses() -> None:
    clock = Clock()
    access = Access("token", burst=3, refill_seconds=10, monotonic=clock)
    for _ in range(3):
        assert access.wait_seconds("10.0.0.1") == 0
        access.note_failure("10.0.0.1")
    assert access.wait_seconds("10.0.0.1") == pytest.approx(10)
    assert access.wait_seconds("10.0.0.2") == 0
    clock.now += 10.01
    assert access.wait_seconds("10.0.0.1") == 0
    access.note_failure("10.0.0.1")
    assert access.wait_seconds("10.0.0.1") > 9
    clock.now += 1000
    assert access.wait_seconds("10.0.0.1") == 0


def test_addresses_of_one_ipv6_network_count_together() -> None:
    access = Access("token", burst=1, monotonic=Clock())
    access.note_failure("2001:db8::1")
    assert access.wait_seconds("2001:db8::ffff") > 0
    assert access.wait_seconds("2001:db8:0:1::1") == 0


def test_guessing_from_very_many_addresses_is_slowed_down_too() -> None:
    access = Access("token", burst=1, monotonic=Clock())
    for number in range(20):
        access.note_failure(f"10.0.1.{number}")
    assert access.wait_seconds("10.0.2.1") > 0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("192.168.1.4", False), ("no such host", False),
    ],
)  # fmt: skip
def test_which_hosts_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_listening_elsewhere_needs_a_token() -> None:
    for token in (None, "", "  "):
        with pytest.raises(UsageError, match=r"STREAMGATE_TOKEN.*127\.0\.0\.1") as raised:
            checked_token("0.0.0.0", token)
        assert raised.value.exit_code == 2
        assert checked_token("127.0.0.1", token) is None
    assert checked_token("0.0.0.0", " token\n") == "token"
    assert checked_token("127.0.0.1", "token") == "token"


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("localhost:8080", True), ("LOCALHOST", True), ("127.0.0.1:1", True), ("[::1]:8080", True),
        ("cams.localhost:8080", True), ("", False), ("evil.example", False), ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8080", False), ("[::1].evil.example", False), ("[::1]evil", False),
        ("10.0.0.1", False), ("0.0.0.0:8080", False), ("localhost:evil", False), ("127.0.0.1@evil", False),
    ],
)  # fmt: skip
def test_host_headers_that_name_this_machine(header: str, allowed: bool) -> None:
    assert host_allowed(header) is allowed


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("Bearer ", None)],
)
def test_bearer_headers(header: str, token: str | None) -> None:
    assert bearer_of({"authorization": header}) == token
    assert bearer_of({}) is None
