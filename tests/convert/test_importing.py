"""`models import`: checkpoints of the published layouts, with random weights; the real ones are not at hand here."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from streamgate.convert import calibrate, checkpoints, import_weights, importing, retinaface  # noqa: E402
from streamgate.convert.iresnet import DEPTHS, blocks_of, iresnet  # noqa: E402
from streamgate.errors import UsageError, WeightsError  # noqa: E402
from streamgate.measures.serfiq import raw_from_spread  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.ifqa import ifqa_scores  # noqa: E402
from streamgate.weights import store  # noqa: E402
from support.command import inside, lines, streamgate  # noqa: E402
from support.media import astronaut_frames, write_clip  # noqa: E402
from support.real_weights import shared_part, standard_models  # noqa: E402


def free_memory_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def iresnet_state(depth: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(depth)
    network = iresnet(next(blocks for blocks, number in DEPTHS.items() if number == depth))
    return network.state_dict()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "backbone.pth"
    torch.save(iresnet_state(18), path)
    return path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with the standard weights in it, links to what is there."""
    folder = tmp_path / "models"
    shutil.copytree(standard_models(), folder, copy_function=os.link, ignore=shutil.ignore_patterns("imported"))
    monkeypatch.setenv("STREAMGATE_MODELS", str(folder))
    return folder


def test_the_iresnet_layouts_have_the_keys_of_their_public_checkpoints() -> None:
    # Read off InsightFace's recognition/arcface_torch/backbones/iresnet.py.
    for depth, keys, parameters in (
        (18, 187, 24_025_600), (50, 475, 43_590_848), (100, 925, 65_156_160), (200, 1807, 118_833_920),
    ):  # fmt: skip
        (blocks,) = (blocks for blocks, number in DEPTHS.items() if number == depth)
        with torch.device("meta"):
            state = iresnet(blocks).state_dict()
        assert len(state) == keys and blocks_of(state) == blocks
        learned = [name for name in state if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        assert sum(state[name].numel() for name in learned) == parameters
        assert {name: tuple(state[name].shape) for name in (
            "conv1.weight", "layer1.0.bn1.weight", "layer1.0.downsample.0.weight", "layer4.1.prelu.weight",
            "layer3.1.conv2.weight", "bn2.running_var", "fc.weight", "features.bias",
        )} == {
            "conv1.weight": (64, 3, 3, 3), "layer1.0.bn1.weight": (64,), "layer1.0.downsample.0.weight": (64, 64, 1, 1),
            "layer4.1.prelu.weight": (512,), "layer3.1.conv2.weight": (256, 256, 3, 3), "bn2.running_var": (512,),
            "fc.weight": (512, 25088), "features.bias": (512,),
        }  # fmt: skip
    assert blocks_of(["conv1.weight", "fc.weight"]) is None


def test_a_recognizer_is_imported_calibrated_and_used(
    checkpoint: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for path in sorted(shared_part("faces/hq_val").iterdir())[:26]:
        shutil.copy(path, faces / path.name)
    # A hundred faces, five times degraded each, would take this network half a minute.
    monkeypatch.setattr(calibrate, "MIN_FACES", 20)
    done = inside("models", "import", checkpoint, "--calibrate", faces)
    assert done.code == 0
    said = done.err
    assert "iresnet18" in said and "calibration: p 0." in said and "--models imported,embedded" in said

    receipt = json.loads((models / "imported" / "iresnet18" / "receipt.json").read_text())
    assert receipt["source"][0]["file"] == "backbone.pth" and receipt["opset"] == 17
    fitted = receipt["calibration"]
    assert 0 < fitted["drop_rate"] < 1 and fitted["alpha"] > 0 and 0 < fitted["r"] < 1
    states = json.loads(streamgate("models", "list", "--json", models=models).out)
    assert [one["state"] for one in states if one["tier"] == "imported"] == ["ready"]
    assert streamgate("models", "verify", models=models).code == 0

    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(20, (480, 360), zoom=1.6))
    done = streamgate("run", clip, "-o", tmp_path / "out", "--models", "imported,embedded", "--set",
                      "measures.serfiq.min=0", models=models)  # fmt: skip
    assert done.code == 0, done.err
    alone = streamgate("run", clip, "-o", tmp_path / "alone", "--models", "imported", models=models)
    assert alone.code == 4 and "no weights for detector, pose; " in alone.err
    assert "--models imported,embedded" in alone.err
    (record,) = lines(tmp_path / "out" / "faces.jsonl")
    assert record["measures"]["serfiq"]["status"] == "ok"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {one["role"]: one["tier"] for one in summary["weights"]}["recognizer"] == "imported"

    onnx = models / "imported" / "iresnet18" / "model.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    verified = streamgate("models", "verify", models=models)
    assert verified.code == 4 and "models import" in verified.out


def test_the_closed_form_sits_in_the_imported_graph(checkpoint: Path, models: Path) -> None:
    made = import_weights(checkpoint, name="mine")
    state = torch.load(checkpoint, weights_only=True)
    with Networks.open("imported,embedded", device="cpu") as networks:
        crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
        found = networks.recognizer.run(crops)
        weight, bias = networks.recognizer.last_affine()
    assert made.calibration is None and found.embedding.shape == (2, 512) and found.features.shape == (2, 25088)
    # The last layer is fc with the batch norm behind it: docs/design.md 4.1's A x + c.
    gain = state["features.weight"] / torch.sqrt(state["features.running_var"] + 1e-5)
    assert np.allclose(weight, (gain[:, None] * state["fc.weight"]).numpy(), atol=1e-5)
    for x, embedding, spread in zip(found.features, found.embedding, found.spread, strict=True):
        mu = weight.astype(np.float64) @ x + bias
        along = weight.T.astype(np.float64) @ mu
        trace = np.sum(
            x.astype(np.float64) ** 2 * ((weight.astype(np.float64) ** 2).sum(0) - along**2 / (mu @ mu))
        )
        assert np.allclose(embedding, mu, atol=1e-3 * np.abs(mu).max())
        assert spread == pytest.approx(np.sqrt(2 * trace / (mu @ mu + trace)), rel=1e-3)


def test_a_detector_may_come_in_its_published_zip(models: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = retinaface.RetinaFace("resnet50")
    inner = tmp_path / "retinaface_resnet50_2020-07-20.pth"
    torch.save(network.state_dict(), inner)
    with zipfile.ZipFile(tmp_path / "retinaface.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "../../escape/retinaface.pth")
    made = import_weights(tmp_path / "retinaface.zip")
    assert (made.roles, made.name) == (("detector",), "retinaface-resnet50")
    assert not (tmp_path.parent / "escape").exists()
    with Networks.open("imported,embedded", device="cpu") as networks:
        assert networks.detector.detect([np.zeros((96, 128, 3), np.uint8)], threshold=1.0) == [[]]
    with pytest.raises(UsageError, match="no measure to calibrate"):
        import_weights(tmp_path / "retinaface.zip", calibrate=tmp_path)


@pytest.mark.skipif(free_memory_gib() < 5, reason="converting the official IFQA network needs 3 GB of memory")
def test_the_official_ifqa_checkpoint_is_imported(models: Path, tmp_path: Path) -> None:
    from streamgate.convert.ifqa import OFFICIAL, Ifqa

    with torch.no_grad():
        network = Ifqa(OFFICIAL)
        for parameter in network.parameters():
            parameter.zero_()
    path = tmp_path / "IFQA_Metric.pth"
    torch.save({"D": network.state_dict(), "epoch": 3}, path)
    made = import_weights(path)
    assert (made.roles, made.name) == (("ifqa",), "ifqa-official")
    with Networks.open("imported,embedded", device="cpu") as networks:
        assert networks.ifqa is not None
        (found,) = ifqa_scores(networks.ifqa, [np.full((256, 256, 3), 7, np.uint8)])
    # All weights zero give exactly a half (docs/design.md 4.2).
    assert found.value == 0.5 and (found.map == 0.5).all()


def test_the_drop_rate_that_is_fitted_lays_the_medians_furthest_apart(networks: Networks, models: Path) -> None:
    folder = shared_part("faces/hq_val")
    faces = list(calibrate.aligned_faces(folder, networks.detector, 110))
    with pytest.raises(WeightsError, match="at least 100 faces"):
        calibrate.fit_serfiq(networks.recognizer, faces[:99], 0.5, "x/1")
    found, fit = calibrate.fit_serfiq(networks.recognizer, faces, 0.5, "x/1")
    _, plain_fit = calibrate.calibrate_serfiq(networks.recognizer, faces, 0.5, "x/1")
    assert fit.clean_median - fit.worst_median >= plain_fit.clean_median - plain_fit.worst_median
    assert fit.worst == plain_fit.worst and found.drop_rate in calibrate.DROP_RATES
    # The figures hold in a graph that is converted with that rate, not only on paper.
    source = shared_part("weights/mobilefacenet_foamliu.pt")
    converted = checkpoints.convert("mobilefacenet", [source], {"drop_rate": found.drop_rate})
    runner = onnxruntime.InferenceSession(converted.onnx, providers=["CPUExecutionProvider"])
    raws = [raw_from_spread(float(runner.run(["spread"], {"face": face[None]})[0][0])) for face in faces]
    assert np.median(raws) == pytest.approx(fit.clean_median, abs=2e-5)


def test_ifqa_is_calibrated_on_aligned_faces(networks: Networks) -> None:
    if networks.ifqa is None:
        pytest.skip("the IFQA weights are missing")
    faces = list(calibrate.aligned_faces(shared_part("faces/hq_val"), networks.detector, 101, ffhq=True))
    assert {face.shape for face in faces} == {(256, 256, 3)}
    found, fit = calibrate.calibrate_ifqa(networks.ifqa, faces, "x/1")
    middle = (fit.clean_median + fit.worst_median) / 2
    assert found.x0 == pytest.approx(middle) and found.w > 0 and fit.clean_median > fit.worst_median


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def _save_zip(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_hostile_checkpoints_are_refused_and_nothing_runs(models: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "hostile.pth"

    def full_pickle() -> None:
        path.write_bytes(pickle.dumps({"D": Hostile(touched)}))

    def torch_pickle() -> None:
        torch.save({"conv1.weight": Hostile(touched)}, path)

    def bomb() -> None:
        _save_zip(path, {"a/data.pkl": b"\x80\x02}.", **{f"a/data/{n}": bytes(1 << 20) for n in range(3)}})

    def two() -> None:
        _save_zip(path, {"a.pth": b"x", "b.pth": b"x"})

    def unknown() -> None:
        torch.save({"weight": torch.zeros(3)}, path)

    def wrong_shapes() -> None:
        state = iresnet_state(18)
        state["fc.weight"] = torch.zeros(1).expand(512, 1_000_000)  # little in the file, much if it were copied
        torch.save(state, path)

    def numbers() -> None:
        torch.save({"D": 3, "epoch": 1}, path)

    def a_list() -> None:
        torch.save([torch.zeros(1)], path)

    for make in (full_pickle, torch_pickle, two, unknown, wrong_shapes, numbers, a_list,
                 lambda: path.write_bytes(b""), lambda: path.write_bytes(b"PK\3\4" + bytes(100))):  # fmt: skip
        make()
        with pytest.raises(WeightsError) as caught:
            import_weights(path)
        assert "\n" not in str(caught.value) and str(caught.value).startswith("hostile"), caught.value
        assert "weights_only" not in str(caught.value)  # torch would advise to run it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "MAX_BYTES", 2 << 20)
        bomb()
        with pytest.raises(WeightsError, match="unpacks to more"):
            import_weights(path)
    assert not touched.exists() and not (models / "imported").exists()


def test_a_checkpoint_cut_off_or_changed_anywhere_is_refused_in_one_line(
    checkpoint: Path, models: Path, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(300)}, tmp_path / "small.pth")
    content = (tmp_path / "small.pth").read_bytes()
    path = tmp_path / "cut.pth"
    random = np.random.default_rng(0)
    for number in range(60):
        if number % 2:
            path.write_bytes(content[: int(random.integers(len(content)))])
        else:
            changed = bytearray(content)
            for index in random.integers(0, len(content), 20):
                changed[index] = int(random.integers(256))
            path.write_bytes(changed)
        with pytest.raises(WeightsError) as caught:
            import_weights(path)
        assert "\n" not in str(caught.value)


def test_wrong_usage_of_import(models: Path, tmp_path: Path, checkpoint: Path) -> None:
    for arguments, code in (
        (["missing.pth"], 2), ([checkpoint, "--name", "../up"], 2), ([checkpoint, "--name", ".hidden"], 2),
        ([checkpoint, "--calibrate", tmp_path / "missing"], 2),
    ):  # fmt: skip
        assert streamgate("models", "import", *arguments, models=models).code == code
    assert streamgate("run", "x.mp4", "--models", "imported,embedded", models=models).code in (3, 4)
    with pytest.raises(WeightsError, match="models import FILE"):
        store.resolve("imported")
