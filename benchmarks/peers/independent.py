"""Test accuracy of a small residual net in PyTorch, trained from scratch on parts of a data set.

    python benchmarks/peers/independent.py IN.npz OUT.npz

IN holds images and test_images, uint8 (N, H, W, C); labels and test_labels (N,); kept, the masks
(R, N) of the images to train on; seed. OUT gets accuracy (R,). The net, its optimiser and its
augmentation have nothing in common with the product's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

N_EPOCHS, BATCH, RATE, DECAY, N_CLASSES = 20, 128, 2e-3, 1e-2, 10
WIDTHS = (24, 48, 96)
SHIFT = 3
"""Pixels that a training image is moved by at most."""


class Residual(nn.Module):
    """(GroupNorm - ReLU - conv3x3) twice, added to the input; halves the sides."""

    def __init__(self, before: int, maps: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.GroupNorm(8, before),
            nn.ReLU(),
            nn.Conv2d(before, maps, 3, stride=2, padding=1),
            nn.GroupNorm(8, maps),
            nn.ReLU(),
            nn.Conv2d(maps, maps, 3, padding=1),
        )
        self.short = nn.Conv2d(before, maps, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, `before`, H, W) to (B, `maps`, H / 2, W / 2)."""
        return self.main(x) + self.short(x)


def residual_net(channels: int) -> nn.Sequential:
    """Images (B, C, H, W) to logits (B, 10)."""
    layers: list[nn.Module] = [nn.Conv2d(channels, WIDTHS[0], 3, padding=1)]
    for before, maps in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
        layers.append(Residual(before, maps))
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], N_CLASSES))
    return nn.Sequential(*layers, *pooled)


def accuracy_without(
    x: torch.Tensor, y: torch.Tensor, x_test: torch.Tensor, y_test: torch.Tensor, seed: int
) -> float:
    """The share of the test images that a net trained on x (N, C, H, W) and y (N,) gets right."""
    torch.manual_seed(seed)
    net, n = residual_net(x.shape[1]), len(x)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    n_steps = N_EPOCHS * -(-n // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, n_steps)
    for _ in range(N_EPOCHS):
        for rows in torch.randperm(n).split(BATCH):
            loss = cross_entropy(net(_augmented(x[rows])), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(part).argmax(1) for part in x_test.split(500)])
    return float((found == y_test).double().mean())


def _augmented(x: torch.Tensor) -> torch.Tensor:
    """A batch (B, C, H, W), each half of it mirrored, and moved by a few pixels."""
    mirrored = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    side, wide = x.shape[2], pad(mirrored, (SHIFT,) * 4)
    top, left = (int(i) for i in torch.randint(2 * SHIFT + 1, (2,)))
    return wide[..., top : top + side, left : left + side]


def main() -> None:
    """Train on each mask and write the accuracies."""
    torch.set_num_threads(1)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    with np.load(source) as file:
        data = dict(file)
    x, x_test = (_as_input(data[name]) for name in ("images", "test_images"))
    y, y_test = (torch.tensor(data[name].astype(np.int64)) for name in ("labels", "test_labels"))
    seed = int(data["seed"])
    masks = torch.tensor(data["kept"])
    accuracy = [accuracy_without(x[kept], y[kept], x_test, y_test, seed) for kept in masks]
    np.savez(target, accuracy=np.array(accuracy))


def _as_input(images: np.ndarray) -> torch.Tensor:
    x = np.moveaxis(images.astype(np.float32) / 127.5 - 1, 3, 1)
    return torch.tensor(np.ascontiguousarray(x))


if __name__ == "__main__":
    main()
