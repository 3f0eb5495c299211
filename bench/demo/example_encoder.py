"""An encoder of your own: copy this file, put your network in it, and name it as `encoder.py:make`.

It is fed float32 RGB, [batch, 3, image_size, image_size], with image_mean and image_std applied. fovcache keys
what it computes by this file's source, by the local files that it imports and by the weights, so an edit never
meets features of the old code. Here the weights come from `--weights random:0`: the network is untrained.
"""

import torch
from torch import nn


class Block(nn.Module):
    """A convolution that halves height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, height, width] → [batch, out_channels, height / 2, width / 2]."""
        return torch.relu(self.conv(x))


class TinyNet(nn.Module):
    """Three blocks; each is a layer that can be asked for."""

    image_size = 32  # pixels: the shorter side, then the centre crop
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    layers = ("block1", "block2", "block3")  # without this line every submodule can be asked for

    def __init__(self) -> None:
        super().__init__()
        self.block1 = Block(3, 32)
        self.block2 = Block(32, 64)
        self.block3 = Block(64, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What follows the deepest layer asked for is not run."""
        for block in (self.block1, self.block2, self.block3):
            x = block(x)
        return x.mean(dim=(2, 3))


def make() -> nn.Module:
    """The factory: it is called without arguments."""
    return TinyNet()
