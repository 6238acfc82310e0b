"""A restorer that the evaluated discriminator was not trained against: it has another seed, loss and adversary.

It is trained here, on training faces, with the L1 loss on the picture and on its gradients, and with a patch critic
(hinge loss). The recipe's restorers, in contrast, learn from a Charbonnier loss, feature matching and IFQA itself, or
from the squared error only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common.degrade import draw_mixture
from models.ifqa.batches import draw_clean
from models.ifqa.generator import Restorer, as_stored
from models.ifqa.trainer import bf16_is_faster, to_input

SEED = 4242
WIDTH = 48


def critic() -> nn.Module:
    """Patch critic on raw pixels: [N, 3, H, W] -> [N, 1, H / 8, W / 8]."""
    layers: list[nn.Module] = []
    for wide, wider in ((3, 24), (24, 48), (48, 96)):
        layers += [nn.utils.spectral_norm(nn.Conv2d(wide, wider, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.utils.spectral_norm(nn.Conv2d(96, 1, 3, padding=1)))


def train_unseen(faces: np.ndarray, path: Path, steps: int = 900, pairs: int = 8) -> Restorer:
    """Train on faces uint8 [n, side, side, 3] and write the weights to `path`; if the file exists, load it instead."""
    network = Restorer(WIDTH).to(memory_format=torch.channels_last)
    if path.is_file():
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.eval()
    torch.manual_seed(SEED)
    network = Restorer(WIDTH).to(memory_format=torch.channels_last)
    judge = critic()
    half = bf16_is_faster(torch.device("cpu"))
    learn = torch.optim.Adam(network.parameters(), 5e-4, betas=(0.9, 0.99))
    learn_judge = torch.optim.Adam(judge.parameters(), 4e-4, betas=(0.0, 0.9))
    for step in range(steps):
        rng = np.random.default_rng((SEED, step))
        clean = [draw_clean(faces[i], rng) for i in rng.integers(len(faces), size=pairs)]
        low = [draw_mixture(rng, 0.5, minimum=2).apply(f, float(rng.uniform(0.2, 0.8))) for f in clean]
        hq, lq = (to_input(np.stack(p), torch.device("cpu")) for p in (clean, low))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            restored = network(lq)
            verdict = judge(restored).float()
        restored = restored.float()
        # The critic's weight increases slowly, so that the network learns the shape of faces first, and then texture.
        weight = 0.03 * min(1.0, step / 300)
        loss = F.l1_loss(restored, hq) + 0.5 * _gradient_loss(restored, hq) - weight * verdict.mean()
        learn.zero_grad()
        loss.backward()
        learn.step()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            real, fake = judge(hq).float(), judge(restored.detach()).float()
        judged = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        learn_judge.zero_grad()
        judged.backward()
        learn_judge.step()
    part = path.with_name(path.name + ".part")
    torch.save(network.state_dict(), part)
    part.replace(path)
    return network.eval()


def _gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    return sum(F.l1_loss(a.diff(dim=d), b.diff(dim=d)) for d in (2, 3))


@torch.no_grad()
def restore(network: Restorer, faces: list[np.ndarray]) -> list[np.ndarray]:
    """The restored pictures; pictures and results are uint8 [256, 256, 3]."""
    out = []
    for start in range(0, len(faces), 16):
        y = as_stored(network(to_input(np.stack(faces[start : start + 16]), torch.device("cpu"))))
        out += list(((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return out
