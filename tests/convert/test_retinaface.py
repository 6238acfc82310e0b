"""The torch definitions of both detector layouts, and their export."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from streamgate.convert import retinaface  # noqa: E402
from streamgate.convert.checkpoints import convert  # noqa: E402
from streamgate.errors import WeightsError  # noqa: E402
from streamgate.networks import Detector  # noqa: E402
from streamgate.networks.priors import priors  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.catalog import InputSpec  # noqa: E402
from streamgate.weights.files import sha256_of  # noqa: E402
from streamgate.weights.store import Weights  # noqa: E402


def resnet_state():
    torch.manual_seed(0)
    return retinaface.RetinaFace("resnet50").state_dict()


def test_the_resnet_layout_has_the_keys_of_its_public_checkpoint():
    """retinaface-pytorch's release: 456 keys; these are read off its published source."""
    state = resnet_state()
    assert len(state) == 456
    shapes = {
        "body.conv1.weight": (64, 3, 7, 7),
        "body.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "body.layer3.5.conv2.weight": (256, 256, 3, 3),
        "body.layer4.2.bn3.running_var": (2048,),
        "fpn.output3.0.weight": (256, 2048, 1, 1),
        "fpn.merge1.1.num_batches_tracked": (),
        "ssh2.conv7x7_3.0.weight": (64, 64, 3, 3),
        "ssh1.conv3X3.0.weight": (128, 256, 3, 3),
        "ClassHead.0.conv1x1.weight": (4, 256, 1, 1),
        "BboxHead.2.conv1x1.bias": (8,),
        "LandmarkHead.1.conv1x1.weight": (20, 256, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_a_resnet_checkpoint_converts_and_runs_behind_the_same_decoder(tmp_path):
    source = tmp_path / "resnet50.pth"
    torch.save(resnet_state(), source)
    converted = convert("retinaface-resnet50", [source], {})
    path = tmp_path / "model.onnx"
    path.write_bytes(converted.onnx)
    weights = Weights("resnet50", ("detector",), "embedded", path, sha256_of(path), "MIT", "", InputSpec(), {}, None)
    session = Session(weights, "cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    outputs = session.run_pictures(pictures)
    count = len(priors(96, 160))
    assert outputs["loc"].shape == (2, count, 4) and outputs["landm"].shape == (2, count, 10)
    assert outputs["conf"].shape == (2, count)
    assert ((outputs["conf"] >= 0) & (outputs["conf"] <= 1)).all()
    found = Detector(session).detect([pictures[0]], threshold=0.0)[0]
    assert found and all(np.isfinite(face.box).all() and face.landmarks.shape == (5, 2) for face in found)


def test_a_checkpoint_of_another_layout_is_refused(tmp_path):
    source = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, source)
    with pytest.raises(WeightsError, match="does not have the layout"):
        convert("retinaface-mnet025", [source], {})


def test_a_full_pickle_is_never_loaded(tmp_path):
    import pickle

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    source = tmp_path / "hostile.pth"
    for content in (pickle.dumps({"weight": Hostile()}), b"", b"not a checkpoint"):
        source.write_bytes(content)
        with pytest.raises(WeightsError, match="not a plain PyTorch state dict"):
            convert("retinaface-mnet025", [source], {})
    assert not (tmp_path / "touched").exists()
