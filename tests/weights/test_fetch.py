"""Downloads over a real connection that breaks, lies and drips."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.errors import WeightsError
from streamgate.weights import fetch as fetching
from streamgate.weights.catalog import SourceFile
from streamgate.weights.fetch import fetch
from support.faulty_server import Answer, faulty
from support.mounted import mount, remount  # noqa: F401 (a fixture)
from support.real_weights import shared_part

CONTENT = bytes(range(256)) * 1200


def pinned(content: bytes = CONTENT) -> SourceFile:
    return SourceFile("weights.bin", "", hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and limits of seconds become hundredths; no proxy of this machine is in the way."""
    monkeypatch.setattr(fetching, "PAUSES_S", (0.01, 0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for one in (name, name.upper()):
            monkeypatch.delenv(one, raising=False)


def bring(url: str, target: Path, content: bytes = CONTENT) -> list[int]:
    seen: list[int] = []
    fetch(pinned(content), f"{url}/weights.bin", target, "w", seen.append)
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return seen


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 65_535, 65_536, 65_537, 150_000, len(CONTENT) - 1])
def test_a_cut_anywhere_is_mended_in_the_same_pull(tmp_path: Path, cut: int, ranges: bool) -> None:
    with faulty(CONTENT, [Answer(cut=cut), Answer(ranges=ranges)]) as server:
        seen = bring(server.url, tmp_path / "weights.bin")
    assert len(server.requests) == 2
    assert server.requests[1].get("Range") == (f"bytes={cut}-" if cut else None)
    assert seen[-1] == len(CONTENT)
    if ranges:
        assert seen == sorted(seen)  # nothing was fetched twice


def test_a_real_file_cut_ten_times_arrives_whole(tmp_path: Path) -> None:
    content = shared_part("weights/retinaface_mnet025_foamliu.pth").read_bytes()
    step = len(content) // 10
    with faulty(content, [Answer(cut=step - number) for number in range(12)] + [Answer()]) as server:
        bring(server.url, tmp_path / "w.pth", content)
    assert len(server.requests) > 10


def test_a_later_pull_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    with (
        faulty(CONTENT, [Answer(cut=100_000), Answer(cut=0)]) as server,
        pytest.raises(WeightsError, match=rf"100000 of {len(CONTENT)} bytes are kept"),
    ):
        fetch(pinned(), f"{server.url}/weights.bin", target, "w", lambda done: None)
    assert not target.exists()
    with faulty(CONTENT, [Answer()]) as server:
        seen = bring(server.url, target)
        assert [request["Range"] for request in server.requests] == ["bytes=100000-"]
    assert seen[0] > 100_000


def test_a_killed_pull_is_resumed(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    program = (
        "import sys\nfrom pathlib import Path\nfrom streamgate.weights.catalog import SourceFile\n"
        "from streamgate.weights.fetch import fetch\n"
        f"source = SourceFile('weights.bin', '', {pinned().sha256!r}, {len(CONTENT)})\n"
        "fetch(source, sys.argv[1], Path(sys.argv[2]), 'w', lambda done: print(done, flush=True))\n"
    )
    # The first 80 kB come at once, then a byte in a while.
    with faulty(CONTENT, [Answer(cut=80_000, says=str(len(CONTENT))), Answer(drip=0.2)]) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", program, f"{server.url}/weights.bin", str(target)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        while int(child.stdout.readline()) < 80_000:
            pass
        while len(server.requests) < 2:
            time.sleep(0.01)
        with pytest.raises(WeightsError, match="another process"):
            fetch(pinned(), f"{server.url}/weights.bin", target, "w", lambda done: None)
        child.kill()
        child.wait()
    assert not target.exists()
    with faulty(CONTENT, [Answer()]) as server:
        bring(server.url, target)
        assert int(server.requests[0]["Range"].removeprefix("bytes=").rstrip("-")) >= 65_536


def test_what_was_left_is_checked_with_the_rest(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    left = tmp_path / f".weights.bin.{pinned().sha256[:12]}.part"
    left.write_bytes(b"x" * 1000)
    with faulty(CONTENT, [Answer()]) as server:
        with pytest.raises(WeightsError, match="sha256"):
            fetch(pinned(), f"{server.url}/weights.bin", target, "w", lambda done: None)
        assert list(tmp_path.iterdir()) == []  # or every later pull would fail alike
        left.write_bytes(b"x" * (len(CONTENT) + 5))
        bring(server.url, target)


@pytest.mark.parametrize("answer, words", [
    (Answer(body=b"x" * len(CONTENT)), "sha256"),
    (Answer(body=CONTENT + b"x"), f"{len(CONTENT) + 1} bytes instead of"),
    (Answer(body=CONTENT + b"x", says=""), "more than"),
    (Answer(body=CONTENT[:-1]), f"{len(CONTENT) - 1} bytes instead of"),
    (Answer(says="10000000000"), "10000000000 bytes instead of"),
    (Answer(headers=(("Content-Encoding", "gzip"),)), "encoding gzip"),
    (Answer(status=404), "HTTP 404"), (Answer(status=403), "HTTP 403"), (Answer(status=503), "HTTP 503"),
    (Answer(redirect="file:///etc/hostname"), "not followed|cannot download"),
    (Answer(redirect="ftp://127.0.0.1/weights.bin"), "not followed|cannot download"),
])  # fmt: skip
def test_what_is_not_the_pinned_file_is_refused_and_nothing_stays(tmp_path: Path, answer: Answer, words: str) -> None:
    with faulty(CONTENT, [answer]) as server, pytest.raises(WeightsError, match=words) as caught:
        fetch(pinned(), f"{server.url}/weights.bin", tmp_path / "weights.bin", "w", lambda done: None)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value).startswith("w: ") and "--mirror" in str(caught.value)


def test_a_lie_about_the_size_is_met_before_anything_is_stored(tmp_path: Path) -> None:
    arrived: list[int] = []
    with faulty(CONTENT, [Answer(says="10000000000")]) as server, pytest.raises(WeightsError):
        fetch(pinned(), server.url, tmp_path / "w", "w", arrived.append)
    assert arrived == []


def test_a_server_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_S", 0.2)
    monkeypatch.setattr(fetching, "SLOWEST", 100_000)
    with faulty(CONTENT, [Answer(drip=0.01)]) as server, pytest.raises(WeightsError, match=r"too slow.*are kept"):
        fetch(pinned(), server.url, tmp_path / "w", "w", lambda done: None)
    # Though bytes came: with another attempt after each it would go on for hours.
    assert len(server.requests) == 1


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SILENCE_S", 0.2)
    with faulty(CONTENT, [Answer(drip=30.0)]) as server, pytest.raises(WeightsError, match=r"no data for 0\.2 s"):
        fetch(pinned(), server.url, tmp_path / "w", "w", lambda done: None)
    # Each attempt brought a byte: that is not enough to go on for ever.
    assert len(server.requests) == 3


def test_a_redirect_is_followed_without_the_password(tmp_path: Path) -> None:
    with faulty(CONTENT, [Answer()]) as there, faulty(b"", [Answer(redirect=f"{there.url}/elsewhere")]) as here:
        url = here.url.replace("http://", "http://jo:pa%40ss@")
        bring(url, tmp_path / "weights.bin")
    assert here.requests[0]["Authorization"] == "Basic " + base64.b64encode(b"jo:pa@ss").decode()
    assert there.requests[0][":path"] == "/elsewhere" and "Authorization" not in there.requests[0]


def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    with faulty(b"", [Answer(redirect="/again")]) as server, pytest.raises(WeightsError, match="cannot download"):
        fetch(pinned(), server.url, tmp_path / "w", "w", lambda done: None)
    assert len(server.requests) < 40


def test_a_proxy_is_asked_where_one_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(CONTENT, [Answer()]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://jo:secret@"))
        bring("http://models.invalid/mirror", tmp_path / "weights.bin")
    (request,) = proxy.requests
    assert request[":path"] == "http://models.invalid/mirror/weights.bin"
    assert {name.lower(): value for name, value in request.items()}["proxy-authorization"].startswith("Basic ")


def test_a_full_disk_is_named_and_the_pull_goes_on_later(
    tmp_path: Path,
    mount: Callable[[str], Path],  # noqa: F811
) -> None:
    folder = mount("size=100k")
    with faulty(CONTENT, [Answer()]) as server:
        with pytest.raises(OSError, match="No space left"):
            fetch(pinned(), server.url, folder / "weights.bin", "w", lambda done: None)
        assert not (folder / "weights.bin").exists()
        remount(folder, "size=1m")
        bring(server.url, folder / "weights.bin")
    assert "Range" in server.requests[1]


def test_a_read_only_folder_is_an_os_error(tmp_path: Path, mount: Callable[[str], Path]) -> None:  # noqa: F811
    folder = mount("size=1m")
    remount(folder, "ro")
    with faulty(CONTENT, [Answer()]) as server, pytest.raises(OSError, match="Read-only"):
        fetch(pinned(), server.url, folder / "weights.bin", "w", lambda done: None)
    assert server.requests == []


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    os.symlink(tmp_path / "mine", tmp_path / f".weights.bin.{pinned().sha256[:12]}.part")
    with faulty(CONTENT, [Answer()]) as server, pytest.raises(OSError):
        fetch(pinned(), server.url, tmp_path / "weights.bin", "w", lambda done: None)
    assert (tmp_path / "mine").read_text() == "mine"
