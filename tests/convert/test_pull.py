"""`models pull` over loopback HTTP, with the real files of ../shared where they are."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from streamgate import convert, weights
from streamgate.convert import pulling
from streamgate.errors import UsageError, WeightsError
from streamgate.weights import listing, store
from streamgate.weights.catalog import Entry, SourceFile, load_catalog
from streamgate.weights.files import atomic_write, sha256_of
from support.real_weights import shared_part


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def serve():
    """Serve a folder on loopback; gives its URL and the list of requested paths."""
    servers = []

    def start(folder: Path) -> tuple[str, list[str]]:
        handler = type("Handler", (Quiet,), {"requests": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler.requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("STREAMGATE_MIRROR", raising=False)
    return tmp_path / "models"


@pytest.fixture
def fake_entry(monkeypatch) -> bytes:
    """A catalog of one entry whose file is a few bytes; returns those bytes."""
    content = b"weights" * 40_000
    digest = hashlib.sha256(content).hexdigest()
    entry = Entry(
        name="fake",
        title="",
        roles=("pose",),
        tier="standard",
        licence="MIT",
        training_data="none",
        converter="fsanet",
        source=(SourceFile("fake.bin", "http://127.0.0.1:9/fake.bin", digest, len(content)),),
    )
    for module in (pulling, store, listing):
        monkeypatch.setattr(module, "load_catalog", lambda: (entry,))
    return content


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.part")]


def test_pull_from_a_mirror_converts_verifies_and_needs_nothing_twice(models, serve):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    url, requests = serve(shared_part("weights"))
    said, seen = [], []
    pulled = convert.pull(mirror=url, report=said.append, progress=lambda *step: seen.append(step))
    assert list(pulled.values()) == ["pulled"] * 3
    assert len(said) == 3 and all(line.startswith("converting ") for line in said)
    last = {file: (done, size) for file, done, size in seen}
    assert len(last) == 4 and all(done == size for done, size in last.values())
    count = len(requests)

    assert list(convert.pull(mirror=url).values()) == ["present"] * 3
    assert len(requests) == count
    assert [damage for one, damage in weights.verify() if one.tier == "standard"] == [""] * 3
    assert {state.state for state in weights.list_models() if state.tier == "standard"} == {"ready"}
    assert set(weights.resolve("standard")) >= {"detector", "recognizer", "pose"}

    receipt = json.loads((models / "mobilefacenet-foamliu" / "receipt.json").read_text())
    assert receipt["source"][0]["sha256"] == load_catalog()[1].source[0].sha256
    assert receipt["onnx"]["sha256"] == sha256_of(models / "mobilefacenet-foamliu" / "model.onnx")
    assert receipt["opset"] == 17 and receipt["versions"]["torch"] and receipt["input"]["dtype"] == "uint8"

    changed = models / "fsanet-headpose" / "model.onnx"
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert [one.name for one, damage in weights.verify() if damage] == ["fsanet-headpose"]
    actions = convert.pull(mirror=url)
    assert actions["fsanet-headpose"] == "converted" and len(requests) == count
    assert not any(damage for _, damage in weights.verify())
    assert leftovers(models) == []


def test_an_older_conversion_is_made_anew(models, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    entry = next(entry for entry in load_catalog() if entry.converter == "mobilefacenet")
    originals = shared_part("weights")
    folder = models / entry.name
    pulling.install(entry, [originals / source.file for source in entry.source], folder)
    assert pulling.is_ready(entry, folder)
    changed = dataclasses.replace(entry, options={"drop_rate": 0.3})
    with monkeypatch.context() as patch:
        patch.setattr(store, "load_catalog", lambda: (changed,))
        assert not pulling.is_ready(changed, folder)
    monkeypatch.setattr(store, "CONVERTER_VERSION", 99)
    assert not pulling.is_ready(entry, folder)
    assert {state.name: state.state for state in weights.list_models()}[entry.name] == "stale"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "fake", "source": [1]}', "\xff"])
def test_a_damaged_receipt_never_counts_as_ready(models, fake_entry, content):
    folder = models / "fake"
    folder.mkdir(parents=True)
    (folder / store.RECEIPT_NAME).write_text(content, encoding="latin-1")
    (folder / store.ONNX_NAME).write_bytes(b"onnx")
    assert not pulling.is_ready(pulling.load_catalog()[0], folder)


@pytest.mark.parametrize("damage", ["changed", "longer", "shorter", "absent"])
def test_a_wrong_file_is_refused_and_nothing_stays(models, serve, tmp_path, fake_entry, damage):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    content = {
        "changed": b"X" + fake_entry[1:],
        "longer": fake_entry + b"more" * 100_000,
        "shorter": fake_entry[:-1],
        "absent": None,
    }[damage]
    if content is not None:
        (mirror / "fake.bin").write_bytes(content)
    url, _ = serve(mirror)
    with pytest.raises(WeightsError, match=r"not the pinned fake\.bin|cannot download") as caught:
        convert.pull(mirror=url)
    assert caught.value.exit_code == 4 and "--mirror" in str(caught.value)
    assert [path for path in models.rglob("*") if path.is_file()] == []


def test_a_secret_in_the_mirrors_address_is_not_shown(models, fake_entry):
    with pytest.raises(WeightsError) as caught:
        convert.pull(mirror="http://user:hunter2@127.0.0.1:9/models?token=abcdef")
    assert "hunter2" not in str(caught.value) and "abcdef" not in str(caught.value)


def test_a_kept_download_needs_no_network(models, serve, fake_entry):
    (models / "downloads").mkdir(parents=True)
    (models / "downloads" / "fake.bin").write_bytes(fake_entry)
    pytest.importorskip("onnx")
    # The conversion fails (these are no weights), but only after the download was accepted.
    with pytest.raises((WeightsError, ValueError)):
        convert.pull()
    assert (models / "downloads" / "fake.bin").read_bytes() == fake_entry


def test_a_mirror_may_be_a_folder_or_come_from_the_environment(models, tmp_path, fake_entry, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "fake.bin").write_bytes(fake_entry)
    monkeypatch.setattr(pulling, "install", lambda entry, sources, folder: atomically(folder / store.ONNX_NAME))
    monkeypatch.setenv("STREAMGATE_MIRROR", str(mirror))
    assert list(convert.pull().values()) == ["pulled"]


def atomically(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"onnx")


@pytest.mark.parametrize("mirror", ["ftp://host/x", "/no/such/folder"])
def test_other_mirrors_and_tiers_are_usage_errors(models, mirror):
    with pytest.raises(UsageError, match="mirror"):
        convert.pull(mirror=mirror)
    with pytest.raises(UsageError, match="tier"):
        convert.pull("huge")


def test_a_read_only_folder_is_named(tmp_path, monkeypatch, fake_entry):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "file"))
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "fake.bin").write_bytes(fake_entry)
    with pytest.raises(WeightsError, match="cannot write"):
        convert.pull(mirror=str(mirror))


def test_converting_without_torch_says_how_to_get_it(models, monkeypatch, serve):
    pytest.importorskip("onnx")
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"streamgate\[convert\].*whl/cpu"):
        convert.pull(mirror=str(shared_part("weights")))


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and leftovers(tmp_path) == []


def test_nothing_there_verifies_to_nothing(models, monkeypatch):
    monkeypatch.setattr(store, "embedded_folder", lambda: None)
    shutil.rmtree(models, ignore_errors=True)
    assert weights.verify() == []
    assert {state.state for state in weights.list_models()} == {"missing"}
