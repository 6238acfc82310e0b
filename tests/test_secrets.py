"""Ten forms of an address with secrets, on every way into the program: none comes out again, anywhere."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faulty_server import Answer, faulty
from hostile import run_limited
from hostile_videos import clip_bytes
from real_weights import standard_models
from streamgate import zoo
from streamgate.config import load_config
from streamgate.errors import StreamgateError, redact_url
from streamgate.records import redacted
from streamgate.sinks import RunInfo, SourceInfo, SourceResult, open_sink
from streamgate.sources import discover, open_source
from streamgate.sources.live import LiveConnection, check_address
from streamgate.zoo import fetching

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
        "sink redis": sink,
        "sink rediss": sink,
        "sink kafka": sink,
        "mirror http": lambda url: zoo.pull(mirror=url),
        "mirror ftp": lambda url: zoo.pull(mirror=url),
        "connection rtsp": connection,
        "connection http": connection,
        "connection srt": connection,
    }


def test_no_way_in_lets_a_secret_out(
    form: tuple[str, list[str]], ways: dict[str, Callable[[str], object]], caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fetching, "PAUSES_S", ())
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
    monkeypatch.setattr(fetching, "PAUSES_S", ())
    text, secrets = form
    with faulty(b"", [Answer(status=401)]) as server:
        url = text.format(scheme="http", host=server.url.partition("://")[2])
        try:
            zoo.pull(mirror=url)
        except StreamgateError as error:
            clean(everything(error), secrets)
        else:
            raise AssertionError("nothing there can be pulled")


def test_records_and_summaries_are_clean(form: tuple[str, list[str]]) -> None:
    from streamgate.records import dumps, source_record

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
        extra = [["--sink", url], ["--set", f"gate.max_yaw={url}"], ["--preset", url], [f"--sink={url}", "--nonsense"],
                 ["--models", url], ["--device", url]][number % 6]  # fmt: skip
        ran = run_limited(["run", clip, "-o", folder / "out", *extra],
                          {"STREAMGATE_MODELS": str(models), "TMPDIR": str(folder)})  # fmt: skip
        assert ran.code in (2, 4, 5), ran.err
        written = [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
        clean("\n".join([ran.out, ran.err, *written, *map(str, folder.rglob("*"))]), secrets)
