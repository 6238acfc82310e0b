"""Ten forms of an address with secrets, on every way into the program: none comes out again, anywhere."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamgate.config import load_config
from streamgate.convert import pull
from streamgate.errors import DeliveryError, SinkError, StreamgateError, UsageError
from streamgate.redaction import redact_url
from streamgate.sinks import SinkGroup, open_sink
from streamgate.sinks.disk import DiskSink
from streamgate.sources import discover, open_source
from streamgate.sources.live import LiveConnection, check_address
from streamgate.store.jsonlines import redacted
from streamgate.store.run import RunInfo, SourceInfo, SourceResult
from streamgate.weights import fetch
from support.command import inside
from support.faulty_server import Answer, faulty
from support.hostile import run_limited
from support.hostile_videos import clip_bytes
from support.real_weights import standard_models
from support.redis_server import launch, spare_port
from support.sink_values import Make

FORMS = [
    ("{scheme}://first.last:p%40ss-Qx7@{host}/a", ["first.last", "p%40ss-Qx7", "p@ss-Qx7"]),
    ("{scheme}://me@corp.com:pw-Qx7@{host}/a", ["me@corp.com", "pw-Qx7"]),
    ("{scheme}://:pw-Qx7@{host}/a", ["pw-Qx7"]),
    ("{scheme}://token-Qx7@{host}/a", ["token-Qx7"]),
    ("{scheme}://{host}/a?channel=1&password=pw-Qx7&user=jo-Qx7", ["pw-Qx7", "jo-Qx7"]),
    ("{scheme}://{host}/a?access_token=tok%2Fen-Qx7#key=frag-Qx7", ["tok%2Fen-Qx7", "tok/en-Qx7", "frag-Qx7"]),
    ("{scheme}://jo-Qx7:pw/with/slash-Qx7@{host}/a", ["jo-Qx7", "slash-Qx7"]),
    ("{scheme}://jo-Qx7:pw#with?signs-Qx7@{host}/a", ["jo-Qx7", "signs-Qx7"]),
    ("{scheme}://jo-Qx7:p%3A%2F%2Fw-Qx7@[::1]:9/a", ["jo-Qx7", "p%3A%2F%2Fw-Qx7", "p://w-Qx7"]),
    ("{scheme}://{host}/a?mode=caller&passphrase=pw-Qx7;sig=sg-Qx7", ["pw-Qx7", "sg-Qx7"]),
]
MARK = "Qx7"
"""Part of every secret, and of nothing else."""


@pytest.fixture(scope="module", params=FORMS, ids=[form for form, _ in FORMS])
def form(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    return request.param


def everything(error: BaseException) -> str:
    """The error, its causes and contexts, and their arguments."""
    texts, seen = ["".join(traceback.format_exception(error))], set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        texts += [repr(one), repr(one.args), repr(vars(one))]
        waiting += [one.__cause__, one.__context__]
    return "\n".join(texts)


def clean(text: str, secrets: list[str]) -> None:
    assert MARK not in text, [secret for secret in secrets if secret in text]
    for secret in secrets:
        assert secret not in text


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Callable[[str], object]]]:
    """What an address may be given to; each ends with an error of ours."""
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("STREAMGATE_STALL_S", "2")
    info = RunInfo({}, (), {}, "", (), {})
    live = load_config("live", ["live.connect_timeout_s=2", "live.read_timeout_s=2"]).live

    def sink(url: str) -> None:
        with open_sink(url, info, retry_seconds=0.2):
            pass

    def connection(url: str) -> None:
        with LiveConnection(check_address(url), live) as opened:
            next(opened.frames())

    yield {
        "source http": lambda url: open_source(url),
        "discover rtsp": lambda url: discover([url]),
        "source s3": lambda url: open_source(url),
        "source web https": lambda url: open_source(url.replace("/a", "/a.mp4")),
        "source sftp": lambda url: open_source(url),
        "source nonsense": lambda url: open_source(url),
        "sink redis": sink,
        "sink rediss": sink,
        "sink kafka": sink,
        "mirror http": lambda url: pull(mirror=url),
        "mirror ftp": lambda url: pull(mirror=url),
        "connection rtsp": connection,
        "connection http": connection,
        "connection srt": connection,
    }


def test_no_way_in_lets_a_secret_out(
    form: tuple[str, list[str]], ways: dict[str, Callable[[str], object]], caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fetch, "PAUSES_S", ())
    caplog.set_level(logging.DEBUG)
    text, secrets = form
    for way, call in ways.items():
        # Port 9: nobody listens there.
        url = text.format(scheme=way.rpartition(" ")[2], host="127.0.0.1:9")
        with pytest.raises(StreamgateError) as caught:
            call(url)
        assert MARK not in everything(caught.value), (way, everything(caught.value))
        clean(everything(caught.value), secrets)
    clean(caplog.text, secrets)
    clean("".join(capfd.readouterr()), secrets)


def test_a_refusing_server_is_told_nothing_that_we_repeat(form: tuple[str, list[str]], tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(fetch, "PAUSES_S", ())
    text, secrets = form
    with faulty(b"", [Answer(status=401)]) as server:
        url = text.format(scheme="http", host=server.url.partition("://")[2])
        try:
            pull(mirror=url)
        except StreamgateError as error:
            clean(everything(error), secrets)
        else:
            raise AssertionError("nothing there can be pulled")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where a Redis address may lead: HOST:PORT by what goes wrong there."""
    folder = tmp_path_factory.mktemp("servers")
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates")
    pem = str(folder / "server.pem")
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    tls = spare_port()
    locked = launch(folder, "--requirepass", "another-one", "--tls-port", str(tls), "--tls-cert-file", pem,
                    "--tls-key-file", pem, "--tls-ca-cert-file", pem, "--tls-auth-clients", "no")  # fmt: skip
    full = launch(folder, "--replicaof", "127.0.0.1 1")
    yield {
        "redis nobody": "127.0.0.1:9",
        "redis locked": f"127.0.0.1:{locked.port}",
        "redis read-only": f"127.0.0.1:{full.port}",
        "redis to TLS": f"127.0.0.1:{tls}",
        "rediss nobody": "127.0.0.1:9",
        "rediss untrusted": f"127.0.0.1:{tls}",
        "rediss to no name": "no-such-host.invalid:6379",
    }
    locked.stop()
    full.stop()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run."""
    make, folder = Make(), tmp_path_factory.mktemp("finished") / "out"
    with DiskSink(folder, make.run()) as sink:
        make.send(sink, "a")
        sink.finish([make.result("a")], {})
    return folder


def test_no_redis_lets_a_secret_out(
    form: tuple[str, list[str]], servers: dict[str, str], finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text, secrets = form
    for where, host in servers.items():
        # With a database for a path most of the forms are well-formed here: they reach the server.
        url = text.replace("/a", "/0").format(scheme=where.partition(" ")[0], host=host)
        quickly = ("&" if "?" in url else "?") + "socket_timeout=0.3&socket_connect_timeout=0.3"
        url = url + quickly if "#" not in url else url
        said: list[str] = []
        with pytest.raises(StreamgateError) as caught, open_sink(url, RunInfo({}, (), {}, "", (), {}),
                                                                 retry_seconds=0.1, warn=said.append):  # fmt: skip
            # A server that lets this user in after all.
            raise UsageError("nothing is wrong here")
        clean(everything(caught.value) + "".join(said), secrets)
        done = inside("replay", finished, "--sink", url, "--sink-retry", "0.1")
        assert done.code in (0, 2, 5), done.err
        clean(done.out + done.err, secrets)
    clean(caplog.text, secrets)


def test_a_delivery_that_fails_midway_tells_no_secret(form: tuple[str, list[str]], tmp_path: Path) -> None:
    text, secrets = form
    server, make, said = launch(tmp_path), Make(), []
    for user in ("first.last", "me@corp.com", "default"):
        with server.client() as client:
            passwords = [f">{one}" for one in secrets if " " not in one]
            client.execute_command("ACL", "SETUSER", user, "on", "nopass", *passwords, "~*", "+@all")
    out = tmp_path / "out"
    url = text.replace("/a", "/0").format(scheme="redis", host=f"127.0.0.1:{server.port}")
    try:
        with SinkGroup([
            DiskSink(out, make.run()), open_sink(url, make.run(), retry_seconds=0.1, results=out, warn=said.append)
        ]) as sink:  # fmt: skip
            make.send(sink, "a")
            server.stop()
            make.send(sink, "b")
            sink.finish([make.result("a"), make.result("b")], {})
    except StreamgateError as error:
        # Forms that are no address of a Redis are refused before; the others get as far as it is wanted here.
        assert isinstance(error, UsageError | DeliveryError | SinkError)
        clean(everything(error) + "".join(said), secrets)
    else:
        raise AssertionError("the server was away")
    finally:
        server.stop()
    written = [path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()]
    clean("\n".join([*written, *map(str, out.rglob("*"))]), secrets)


def test_records_and_summaries_are_clean(form: tuple[str, list[str]]) -> None:
    from streamgate.store.jsonlines import dumps
    from streamgate.store.run import source_record

    text, secrets = form
    url = text.format(scheme="rtsp", host="camera:554")
    result = SourceResult(SourceInfo(url, "x"), error=f"{url}: broke", notes=[f"again {url}"])
    clean(dumps(source_record(result)), secrets)
    clean(dumps(redacted({"sink": url, "nested": [{"url": f"see {url}"}]})), secrets)
    assert redact_url(url).startswith("rtsp://")


def test_the_command_writes_no_secret_anywhere(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(clip_bytes())
    models = standard_models()
    for number, (text, secrets) in enumerate(FORMS):
        url = text.format(scheme="redis", host="127.0.0.1:9")
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        # Ways by which an address may come in at once: sink, a setting that is none, a preset, a mistyped option.
        extra = [["--sink", url, "--sink-retry=0.2"], ["--set", f"measures.yaw.max={url}"], ["--preset", url],
                 [f"--sink={url}", "--nonsense"], ["--models", url], ["--device", url]][number % 6]  # fmt: skip
        ran = run_limited(["run", clip, "-o", folder / "out", *extra],
                          {"STREAMGATE_MODELS": str(models), "TMPDIR": str(folder)})  # fmt: skip
        assert ran.code in (2, 4, 5), ran.err
        written = [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
        clean("\n".join([ran.out, ran.err, *written, *map(str, folder.rglob("*"))]), secrets)
