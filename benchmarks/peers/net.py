"""The product's nets in PyTorch, with its parameters, and the same training of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peers.problem import Arrays, Problem

BATCH = 64


class Convolutions(nn.Module):
    """Three blocks of two convolutions, then affine; what a block holds is the subclass's.

    Images (..., C, H, W) give logits (..., K): a set of images may count as one example.
    """

    def __init__(self, channels: int, side: int, n_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for maps in (32, 64, 128):
            blocks += self.block(channels, maps)
            channels = maps
        self.blocks = nn.Sequential(*blocks)
        self.affine = nn.Linear(128 * (side // 8) ** 2, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        outer = x.shape[:-3]
        h = self.blocks(x.reshape(-1, *x.shape[-3:]))
        return self.affine(h.flatten(1)).reshape(*outer, -1)

    @staticmethod
    def block(channels: int, maps: int) -> list[nn.Module]:
        """The modules of a block, from `channels` to `maps` maps."""
        raise NotImplementedError


class SixConvolutions(Convolutions):
    """conv3x3 - BatchNorm - ReLU - conv3x3 - ReLU - maxpool2."""

    @staticmethod
    def block(channels: int, maps: int) -> list[nn.Module]:
        """The modules of a block."""
        first, second = _convolution(channels, maps, True), _convolution(maps, maps, True)
        return [first, nn.BatchNorm2d(maps), nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2)]


class SmoothConvolutions(Convolutions):
    """(conv3x3 - BatchNorm - Swish) twice - average pooling."""

    @staticmethod
    def block(channels: int, maps: int) -> list[nn.Module]:
        """The modules of a block."""
        modules: list[nn.Module] = []
        for before in (channels, maps):
            modules += [_convolution(before, maps, False), nn.BatchNorm2d(maps), nn.SiLU()]
        return [*modules, nn.AvgPool2d(2)]


def _convolution(channels: int, maps: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, maps, 3, padding=1, bias=bias)


@dataclass(frozen=True)
class Net:
    """A net of the product in PyTorch.

    Attributes:
        build: its class.
        places: where the convolutions and normalisations of a block lie among its modules, by the
            product's name.
    """

    build: type[Convolutions]
    places: dict[str, int]


NETS = {
    "six_convolutions": Net(SixConvolutions, {"conv1": 0, "bn": 1, "conv2": 3}),
    "smooth_convolutions": Net(
        SmoothConvolutions, {"conv1": 0, "conv1/bn": 1, "conv2": 3, "conv2/bn": 4}
    ),
}
"""By the product's name."""
OF_CONVOLUTION = {"W": "weight", "b": "bias"}
OF_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def state_dict_of(state: Arrays, net: Net) -> dict[str, torch.Tensor]:
    """A state of the product's net under PyTorch's names."""
    own = {"affine.weight": state["affine/W"].T, "affine.bias": state["affine/b"]}
    n_modules = len(net.build.block(1, 1))
    for block in range(3):
        for layer, place in net.places.items():
            theirs = f"blocks.{n_modules * block + place}"
            own |= {f"{theirs}.{k}": v for k, v in _of_layer(state, f"block{block + 1}/{layer}")}
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in own.items()}


def _of_layer(state: Arrays, layer: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of one layer of the product under PyTorch's names."""
    normalises = layer.endswith("bn")
    names = OF_BATCH_NORM if normalises else OF_CONVOLUTION
    for ours, theirs in names.items():
        path = f"{layer}/{ours}" if normalises else f"{layer}/conv/{ours}"
        if path in state:
            yield theirs, state[path].ravel() if normalises else state[path]


def net_of(problem: Problem, epoch: int = -1) -> Convolutions:
    """The net at the start of an epoch, by default after the training, in evaluation mode."""
    _, channels, side, _ = problem.x.shape
    kind = NETS[problem.model]
    net = kind.build(channels, side, 10)
    missing, _ = net.load_state_dict(state_dict_of(problem.state(epoch), kind), strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"the training holds no {', '.join(missing)}")
    return net.eval()


def train(
    net: nn.Module, problem: Problem, steps: Iterable[int], kept: np.ndarray | None = None
) -> list[float]:
    """Take recorded steps, on the training images of the mask `kept` (n,) alone where it is given.

    Returns:
        The mean loss of each batch before its step.
    """
    x, y = tensors(problem)
    losses = []
    optimiser = torch.optim.SGD(net.train().parameters(), lr=1.0)
    batches = problem.steps
    for t in steps:
        rows = batches[t] if kept is None else batches[t][kept[batches[t]]]
        optimiser.param_groups[0]["lr"] = float(problem.rates[t])
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    net.eval()
    return losses


def parity(problem: Problem) -> dict[str, float]:
    """How far PyTorch's training of the same net is from the product's.

    Returns:
        Relative differences. From the product's state at the start of an epoch, the largest and
        median over the epochs: of the first batch's loss, of the losses of the epoch's batches,
        and of the parameters at its end (distance over norm). From the initial state: of the
        losses, and of the final parameters.
    """
    pieces = [_epoch_apart(problem, epoch) for epoch in range(int(problem.epochs[-1]) + 1)]
    first, losses, parameters = np.array(pieces).T
    net = net_of(problem, 0)
    free = _apart(train(net, problem, range(len(problem.rates))), problem.losses)
    return {
        "first loss, most": float(first.max()),
        "losses of an epoch, median": float(np.median(losses)),
        "losses of an epoch, most": float(losses.max()),
        "parameters after an epoch, median": float(np.median(parameters)),
        "parameters after an epoch, most": float(parameters.max()),
        "losses of all epochs, most": float(free.max()),
        "parameters after all epochs": _distance(net, net_of(problem)),
    }


def _epoch_apart(problem: Problem, epoch: int) -> tuple[float, float, float]:
    """Of one epoch: first loss, largest of the losses, parameters at its end."""
    net, steps = net_of(problem, epoch), np.flatnonzero(problem.epochs == epoch)
    losses = _apart(train(net, problem, steps), problem.losses[steps])
    return float(losses[0]), float(losses.max()), _distance(net, net_of(problem, epoch + 1))


def _apart(losses: Sequence[float], true: np.ndarray) -> np.ndarray:
    return np.abs(np.array(losses) - true) / true


def _distance(net: nn.Module, true: nn.Module) -> float:
    return float((parameters_of(net) - parameters_of(true)).norm() / parameters_of(true).norm())


def parameters_of(net: nn.Module) -> torch.Tensor:
    """All parameters as one vector (p,)."""
    return torch.cat([p.detach().ravel() for p in net.parameters()])


def tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images (n, C, H, W) and labels (n,)."""
    return torch.from_numpy(problem.x), torch.from_numpy(problem.labels.astype(np.int64))


def validation_tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Validation images (n_val, C, H, W) and labels (n_val,)."""
    return torch.from_numpy(problem.x_val), torch.from_numpy(problem.labels_val.astype(np.int64))


def save_checkpoints(problem: Problem, folder: Path) -> None:
    """Write the state at the end of each epoch as epoch_<k>.pt, k from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, int(problem.epochs[-1]) + 2):
        torch.save(net_of(problem, epoch).state_dict(), checkpoint_path(folder, epoch))


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """The state at the end of an epoch."""
    return folder / f"epoch_{epoch:03}.pt"
