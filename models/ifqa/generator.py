"""The small restorers (the generators of the paper), whose output the discriminator learns to detect."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Restorer(nn.Module):
    """U-Net on blocks of 4 x 4 pixels. Input and output are [N, 3, H, W] in -1..1; the output is the input plus a
    correction.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        a, b, c = width, width * 3 // 2, width * 2
        self.enter = nn.Conv2d(48, a, 3, padding=1)
        self.fine = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(a, a, 3, padding=1), nn.LeakyReLU(0.2))
        self.down1 = nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2))
        self.middle = nn.Sequential(nn.Conv2d(b, b, 3, padding=1), nn.LeakyReLU(0.2))
        self.down2 = nn.Sequential(nn.Conv2d(b, c, 4, 2, 1), nn.LeakyReLU(0.2))
        self.coarse = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(0.2)
        )
        self.up2 = nn.Conv2d(c, b, 3, padding=1)
        self.join2 = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(b, b, 3, padding=1), nn.LeakyReLU(0.2))
        self.up1 = nn.Conv2d(b, a, 1)
        self.join1 = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(a, a, 3, padding=1), nn.LeakyReLU(0.2))
        self.leave = nn.Conv2d(a, 48, 3, padding=1)
        # The network starts as the identity, so that its first outputs are faces and not colour noise.
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.fine(self.enter(F.pixel_unshuffle(picture, 4)))
        y = self.middle(self.down1(x))
        z = self.coarse(self.down2(y))
        y = self.join2(F.interpolate(self.up2(z), scale_factor=2, mode="nearest") + y)
        x = self.join1(F.interpolate(self.up1(y), scale_factor=2, mode="nearest") + x)
        return picture + F.pixel_shuffle(self.leave(x), 4).to(picture.dtype)


def as_stored(picture: Tensor) -> Tensor:
    """Values in -1..1 rounded to the 256 levels of a file, so that unrounded values do not reveal a generator."""
    return ((picture.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
