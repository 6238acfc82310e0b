"""The HTTP side over real connections: what it answers, to whom, and what it keeps to itself."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from urllib.parse import quote, urlencode

import pytest

from streamgate.errors import SinkError, StreamgateError, UsageError
from streamgate.service.auth import SESSION_COOKIE
from streamgate.service.http import parse_address, serving
from streamgate.service.state import ServiceState, StreamState
from support.client import Client
from support.metric import metric

TOKEN = "correct horse battery staple"
Serve = Callable[..., Client]

GUARDED = ("/", "/metrics", "/api/streams", "/api/faces", "/api/events", "/api/faces/entrance/0/1/1", "/nothing")


def key_path(key: str) -> str:
    return f"/api/faces/{quote(key)}"


# Probes


def test_it_is_ready_once_models_are_loaded_and_a_stream_runs() -> None:
    state = ServiceState()
    with serving(state, "127.0.0.1:0", "") as url:
        client = Client(url)
        assert client.get("/healthz").json == {"healthy": True}
        assert client.get("/readyz").status == 503
        state.note(models_loaded=True)
        state.add_stream("entrance", "rtsp://cam/1")
        assert client.get("/readyz").status == 503
        state.update_stream("entrance", state=StreamState.RUNNING)
        answer = client.get("/readyz")
        assert answer.status == 200 and answer.json["ready"] and answer.json["streams_running"] == 1
        state.note(stopping=True)
        assert client.get("/readyz").status == 503
        state.beat()
        assert client.get("/healthz").status == 200
        assert client.get("/healthz", method="HEAD").body == b""


# What is told


def test_streams_as_the_state_has_them(serve: Serve, state: ServiceState) -> None:
    told = serve().get("/api/streams").json
    assert told["overview"]["streams"] == 3 and told["overview"]["streams_running"] == 2
    assert [one["name"] for one in told["streams"]] == ["entrance", "hall", "dock"]
    assert told["streams"][0]["fps"] == 24.96 and told["streams"][0]["state"] == "running"
    assert told["streams"][2]["error"].startswith("401") and told["login"] is False


def test_faces_newest_first_with_their_records(serve: Serve, state: ServiceState) -> None:
    client = serve()
    told = client.get("/api/faces").json["faces"]
    assert [face["key"] for face in told] == [face.key for face in state.faces()]
    assert told[0]["record"]["measures"]["yaw"]["status"] == "ok" and 0 < told[0]["record"]["quality"] <= 100
    assert "embedding" not in client.get("/api/faces").body.decode()
    assert [face["stream"] for face in client.get("/api/faces?stream=entrance").json["faces"]] == ["entrance"] * 2
    assert len(client.get("/api/faces?limit=1").json["faces"]) == 1
    assert client.get("/api/faces?limit=0").status == 422


def test_a_face_with_its_pictures_and_its_track(serve: Serve, state: ServiceState) -> None:
    client = serve()
    face = state.faces()[0]
    told = client.get(key_path(face.key)).json
    assert told["record"] == face.record and told["heatmap"] is True
    assert [point["pts_seconds"] for point in told["series"]] == sorted(p["pts_seconds"] for p in told["series"])
    assert any(point["passed"] for point in told["series"])
    assert client.get(key_path(face.id)).json["key"] == face.key
    photo = client.get(key_path(face.key) + "/photo")
    assert photo.headers["content-type"] == "image/jpeg" and photo.body == face.jpeg
    heatmap = client.get(key_path(face.key) + "/heatmap")
    assert heatmap.headers["content-type"] == "image/png" and heatmap.body == face.heatmap
    assert struct.unpack(">II", heatmap.body[16:24]) == (128, 128)
    for answer in (photo, heatmap):
        assert answer.headers["cache-control"] == "no-store"


def test_metrics_say_what_the_state_says_in_both_formats(serve: Serve, state: ServiceState) -> None:
    state.stages.labels("detector").observe(0.012)
    state.stages.labels("detector").observe(0.3)
    state.batches.labels("detector").observe(4)
    state.events.labels("final").inc(3)
    client = serve()
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    parser = pytest.importorskip("prometheus_client.parser")
    openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    for families in (
        parser.text_string_to_metric_families(plain.body.decode()),
        openmetrics.text_string_to_metric_families(client.get("/metrics", accept).body.decode()),
    ):
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }
        assert samples["streamgate_frames_total", (("stream", "entrance"),)] == 1000
        assert samples["streamgate_fps", (("stream", "hall"),)] == pytest.approx(24.96)
        assert samples["streamgate_stream_state", (("state", "failed"), ("stream", "dock"))] == 1
        assert samples["streamgate_events_total", (("kind", "final"),)] == 3
        assert samples["streamgate_stage_seconds_count", (("stage", "detector"),)] == 2
        assert samples["streamgate_stage_seconds_sum", (("stage", "detector"),)] == pytest.approx(0.312)
        assert samples["streamgate_stage_seconds_bucket", (("le", "0.025"), ("stage", "detector"))] == 1
        assert samples["streamgate_stage_seconds_bucket", (("le", "+Inf"), ("stage", "detector"))] == 2
        assert samples["streamgate_batch_size_sum", (("role", "detector"),)] == 4
        assert samples["process_resident_memory_bytes", ()] > 0


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "*/*;q=1e999", ";;;,,,", "\xff", "a/b," * 2000]
)
def test_metrics_come_in_plain_text_for_headers_that_mean_nothing(serve: Serve, accept: str) -> None:
    answer = serve().get("/metrics", {"Accept": accept})
    assert answer.status == 200 and b"streamgate_ready" in answer.body


def test_a_log_in_that_is_broken_off_is_no_fault(serve: Serve, state: ServiceState) -> None:
    client = serve(token=TOKEN)
    with closing(socket.create_connection(("127.0.0.1", client.port), 20)) as connection:
        connection.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ntoken=")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert client.get("/metrics").status == 200 and metric(state, "streamgate_faults_total", what="http") == 0


def test_every_metric_has_a_helpful_name(serve: Serve) -> None:
    text = serve().get("/metrics").body.decode()
    for family in pytest.importorskip("prometheus_client.parser").text_string_to_metric_families(text):
        assert re.fullmatch(r"(streamgate|process)_[a-z0-9_]+", family.name) and family.documentation, family.name


# Events


def test_events_come_as_they_happen_and_after_a_reconnect_from_where_one_was(serve: Serve, state: ServiceState) -> None:
    client = serve()
    with closing(client.listen()) as listener:
        events = listener.events()
        wait_for_listeners(state, 1)
        state.show(state.faces()[0])
        first = next(events)
        assert first["event"] == "face"
        state.update_stream("hall", state=StreamState.STALLED)
        assert next(events)["event"] == "stream"
    state.remove_stream("dock")
    with closing(client.listen(last_id=int(first["id"]))) as listener:
        events = listener.events()
        assert [next(events)["event"] for _ in range(2)] == ["stream", "removed"]


def test_a_listener_is_told_how_the_streams_are_without_asking(serve: Serve, state: ServiceState) -> None:
    client = serve()
    with closing(client.listen()) as listener:
        events = listener.events("streams")
        first, second = json.loads(next(events)["data"]), json.loads(next(events)["data"])
    assert first["streams"] == client.get("/api/streams").json["streams"] == second["streams"]


def test_a_browser_that_comes_back_too_late_is_told_what_it_missed(serve: Serve, state: ServiceState) -> None:
    client = serve()
    state.note(config_error=None)
    for _ in range(300):
        state.note(config_error=None)
    newest = 3 + 301 + 3  # shown faces, notes, states of three streams
    with closing(client.listen(last_id=1)) as listener:
        events = listener.events()
        assert next(events) == {"event": "gap", "data": f'{{"missed":{newest - 256 - 1}}}'}
        assert next(events)["event"] == "config"


def test_a_browser_of_an_earlier_life_of_the_service_is_told_to_ask_anew(serve: Serve, state: ServiceState) -> None:
    client = serve()
    with closing(client.listen(last_id=10_000)) as listener:
        events = listener.events()
        wait_for_listeners(state, 1)
        state.note(config_error=None)
        assert next(events) == {"event": "gap", "data": '{"missed":null}'}
        assert next(events)["event"] == "config"


def test_listeners_that_leave_are_forgotten(serve: Serve, state: ServiceState) -> None:
    listener = serve().listen()
    wait_for_listeners(state, 1)
    listener.close()
    wait_for_listeners(state, 0)


def test_stopping_ends_open_streams(state: ServiceState) -> None:
    server = ExitStack()
    url = server.enter_context(serving(state, "127.0.0.1:0", ""))
    with closing(Client(url).listen()) as listener:
        wait_for_listeners(state, 1)
        server.close()
        assert list(listener.events()) == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 2)


# Who may


@pytest.mark.parametrize("path", GUARDED)
def test_with_a_token_nothing_is_told_without_it(serve: Serve, path: str) -> None:
    client = serve(token=TOKEN)
    answer = client.get(path, {})
    if path == "/":
        assert answer.status == 303 and answer.headers["location"] == "/login"
    else:
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x"):
        assert client.get(path, {"Authorization": wrong}).status in (401, 303)
    for cookie in (TOKEN, "9999999999.00.00"):
        assert client.get(path, {"Cookie": f"{SESSION_COOKIE}={quote(cookie)}"}).status in (401, 303)
    assert client.get(f"{path}?token={quote(TOKEN)}", {}).status in (401, 303)


def test_with_the_token_everything_is_told(serve: Serve) -> None:
    client = serve(token=TOKEN)
    for path in ("/", "/metrics", "/api/streams", "/api/faces"):
        assert client.get(path).status == 200
    with closing(client.listen()) as listener:
        assert listener.status == 200


def test_probes_log_in_and_the_packages_own_files_need_no_token(serve: Serve) -> None:
    client = serve(token=TOKEN)
    for path in ("/healthz", "/readyz", "/login", "/static/base.css", "/static/app.js", "/favicon.ico"):
        assert client.get(path, {}).status == 200


def test_logging_in_gives_a_cookie_that_no_script_sees(serve: Serve) -> None:
    client = serve(token=TOKEN)
    answer = client.post("/login", urlencode({"username": "streamgate", "token": TOKEN}))
    assert answer.status == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "Path=/" in cookie
    assert TOKEN not in cookie and quote(TOKEN) not in cookie
    session = {"Cookie": cookie.partition(";")[0]}
    assert client.get("/", session).status == 200
    assert client.get("/metrics", session).status == 200
    assert client.get("/api/streams", session).json["login"] is True
    gone = client.post("/logout", headers=session)
    assert gone.status == 303 and "Max-Age=0" in gone.headers["set-cookie"]


def test_behind_tls_the_cookie_is_secure(serve: Serve) -> None:
    body = urlencode({"token": TOKEN})
    answer = serve(token=TOKEN).post("/login", body, {"X-Forwarded-Proto": "https"})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_wrong_token_is_told_so_and_soon_slowed_down(serve: Serve) -> None:
    client = serve(token=TOKEN)
    for _ in range(5):
        answer = client.post("/login", urlencode({"token": "<wrong>"}))
        assert answer.status == 401 and b"token is wrong" in answer.body and b"<wrong>" not in answer.body
        assert "set-cookie" not in answer.headers
    wrong = {"Authorization": "Bearer wrong"}
    for answer in (client.post("/login", urlencode({"token": "wrong"})), client.get("/metrics", wrong)):
        assert answer.status == 429 and int(answer.headers["retry-after"]) > 0
    assert client.get("/login", {}).status == 200


def test_the_right_token_passes_whoever_guesses_from_the_same_address(serve: Serve) -> None:
    client = serve(token=TOKEN)
    for number in range(12):
        client.get("/metrics", {"Authorization": f"Bearer {number}"})
        client.post("/login", urlencode({"token": str(number)}))
        assert client.get("/metrics").status == 200
        answer = client.post("/login", urlencode({"token": TOKEN}))
        assert answer.status == 303 and "set-cookie" in answer.headers


def test_guessing_by_header_is_slowed_down_as_well(serve: Serve) -> None:
    client = serve(token=TOKEN)
    answers = [client.get("/metrics", {"Authorization": f"Bearer {n}"}).status for n in range(7)]
    assert answers == [401] * 5 + [429] * 2


def test_a_session_that_is_open_is_not_locked_out_by_somebody_guessing(serve: Serve) -> None:
    client = serve(token=TOKEN)
    cookie = client.post("/login", urlencode({"token": TOKEN})).headers["set-cookie"].partition(";")[0]
    for number in range(7):
        client.get("/metrics", {"Authorization": f"Bearer {number}"})
    assert client.get("/api/faces", {"Cookie": cookie}).status == 200


@pytest.mark.parametrize("body", ["", "token", "token=&token=x", "%ff=%ff", "token=%00"])
def test_log_in_bodies_that_are_none(serve: Serve, body: str) -> None:
    assert serve(token=TOKEN).post("/login", body).status == 401


@pytest.mark.parametrize("separator", ["&", ";&", "&&"])
@pytest.mark.parametrize("count", [11, 20, 21, 1000])
def test_a_form_of_many_fields_is_no_log_in(serve: Serve, count: int, separator: str) -> None:
    body = separator.join(["a=b"] * count)[:4000]
    assert serve(token=TOKEN).post("/login", body).status == 400


def test_a_log_in_body_that_is_too_long_is_refused(serve: Serve) -> None:
    assert serve(token=TOKEN).post("/login", "token=" + "x" * 10_000).status == 413


def test_on_another_host_than_loopback_a_token_is_needed(state: ServiceState, serve: Serve) -> None:
    with pytest.raises(UsageError, match="STREAMGATE_TOKEN") as raised, serving(state, "0.0.0.0:0", ""):
        pass
    assert raised.value.exit_code == 2
    client = serve("0.0.0.0", TOKEN)
    assert client.get("/api/faces", {"Host": "cams.example"}).status == 401
    assert client.get("/api/faces", {"Host": "cams.example", "Authorization": f"Bearer {TOKEN}"}).status == 200


@pytest.mark.parametrize(("token", "warned"), [("a" * 15, 1), ("a" * 16, 0), ("  short   ", 1)])
def test_a_token_that_may_be_guessed_is_warned_of(state: ServiceState, token: str, warned: int) -> None:
    said: list[str] = []
    with serving(state, "127.0.0.1:0", token, said.append):
        pass
    assert len(said) == warned and all("openssl rand" in line and token.strip() not in line for line in said)


def test_the_token_comes_from_the_environment(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE_TOKEN", TOKEN)
    with serving(state, "127.0.0.1:0") as url:
        assert Client(url).get("/api/faces").status == 401
        assert Client(url, TOKEN).get("/api/faces").status == 200


# What is kept out


@pytest.mark.parametrize("path", ["/", "/api/faces", "/healthz", "/login", "/static/app.js"])
def test_on_loopback_other_host_names_get_nothing(serve: Serve, path: str) -> None:
    client = serve()
    for host in ("evil.example", f"evil.example:{client.port}", "", "127.0.0.1.evil.example"):
        answer = client.get(path, {"Host": host})
        assert answer.status == 421 and b"localhost" in answer.body
    for host in ("localhost:9999", "127.0.0.1", f"[::1]:{client.port}"):
        assert client.get(path, {"Host": host}).status in (200, 303)


def test_pages_of_other_sites_get_nothing(serve: Serve) -> None:
    client = serve()
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/faces", {**foreign, "Sec-Fetch-Mode": "no-cors"}).status == 403
    assert client.get("/api/events", {**foreign, "Sec-Fetch-Mode": "cors"}).status == 403
    assert client.get("/", {**foreign, "Sec-Fetch-Mode": "navigate"}).status == 200
    for origin in (
        "http://evil.example", "null", f"http://localhost:{client.port + 1}", "http://[", "http://]", "[", "", "//", "http://",
        f"http://127.0.0.1:{client.port}.evil.example", f"http://127.0.0.1:{client.port}@evil.example", "\xff", "http://[::1",
        f"http://127.0.0.1:{client.port} http://evil.example", "http://\uff0f".encode().decode("latin-1"), "a" * 9000,
    ):  # fmt: skip
        assert client.post("/login", "token=x", {"Origin": origin}).status == 403, origin
    own = {"Origin": f"http://127.0.0.1:{client.port}"}
    assert client.post("/login", "token=x", own).status == 303


def test_every_answer_carries_the_security_headers(serve: Serve, state: ServiceState) -> None:
    client = serve(token=TOKEN)
    key = key_path(state.faces()[0].key)
    answers = [client.get(path) for path in ("/", key, f"{key}/photo", "/metrics", "/static/app.js", "/nothing")]
    answers += [client.get("/api/faces", {}), client.get("/", {"Host": "evil.example"}), client.post("/login", "x")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../state.py", "/static/..%2fstate.py", "/static/%2e%2e/state.py", "/static/....//state.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/index.html", "/static/login.html",
        "/static/app.js%00.css", "/../../../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd",
        "/api/faces/../../etc/passwd", "/api/faces/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/api/faces//etc/passwd/photo",
        "/api/faces/..%2f..%2fetc%2fpasswd/photo", "/api/faces/entrance/0/1/../../../x/photo", "/api/faces/%00/photo",
        "/api/faces/\\..\\x/heatmap", "/docs", "/openapi.json", "/redoc", "/.env",
    ],
)  # fmt: skip
def test_no_file_is_reachable_by_its_path(serve: Serve, path: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", serve().port), 10)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer and b"ServiceState" not in answer


def test_garbage_and_other_methods_are_refused_and_the_server_lives(serve: Serve) -> None:
    client = serve()
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100_000):
        with closing(socket.create_connection(("127.0.0.1", client.port), 10)) as connection:
            connection.settimeout(10)
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(65536)[:10] in (b"", b"HTTP/1.1 4")
            except OSError:
                pass  # it hung up in the middle of it, which is fine
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        assert client.get("/api/faces", method=method).status == 405
    assert client.get("/api/events", method="HEAD").status == 405
    assert client.get("/api/streams").status == 200


def test_an_answer_that_breaks_is_one_line_for_the_user(
    serve: Serve, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    monkeypatch.setattr(state, "faces", lambda *_: 1 / 0)
    answer = client.get("/api/faces")
    assert answer.status == 500 and b"Traceback" not in answer.body and b"division" not in answer.body
    assert client.get("/api/streams").status == 200
    assert metric(state, "streamgate_faults_total", what="http") == 1


# Where it listens


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1)),
        (":8080", ("127.0.0.1", 8080)), ("8080", ("127.0.0.1", 8080)),
    ],
)  # fmt: skip
def test_addresses(address: str, parsed: tuple[str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", "host", "host:", "host:port", "1.2.3.4:99999", "::1:8080", "host:-1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(address)


def test_a_port_in_use_is_told_so(state: ServiceState, serve: Serve) -> None:
    taken = serve().port
    with pytest.raises(SinkError, match=f"{taken}.*another port") as raised, serving(state, f"127.0.0.1:{taken}", ""):
        pass
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_told_so(state: ServiceState, host: str) -> None:
    with pytest.raises(StreamgateError) as raised, serving(state, f"{host}:0", TOKEN):
        pass
    assert raised.value.exit_code == 2 and host in str(raised.value)


def test_it_listens_on_ipv6_too(state: ServiceState) -> None:
    try:
        with serving(state, "[::1]:0", "") as url:
            assert url.startswith("http://[::1]:")
    except StreamgateError:
        pytest.skip("this machine has no IPv6 loopback")


def wait_for_listeners(state: ServiceState, count: int) -> None:
    for _ in range(1000):
        if state.hub.listeners == count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{state.hub.listeners} listeners, not {count}")
