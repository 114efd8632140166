"""Training, retraining and SGD-influence in NumPy's double precision, for nets of dense layers.

What nnabla computes in single precision is held against this; it shares no code with the
product. The nets are those of [H] section 7.1: affine layers with an activation between them and
one logit, a binary cross-entropy, plain SGD with an L2 term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Layers = list[np.ndarray]
"""W_1 (d_0, d_1), b_1 (d_1,), W_2, ...; with leading axes for several nets at once."""


@dataclass(frozen=True)
class Activation:
    """What lies between the layers, with its two derivatives, element by element."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    curvature: Callable[[np.ndarray], np.ndarray]


RELU = Activation(lambda h: np.maximum(h, 0.0), lambda h: h > 0, np.zeros_like)


def gelu(scale: float = 1.702) -> Activation:
    """h s(h) with s(h) = 1 / (1 + exp(-scale h))."""

    def slope(h: np.ndarray) -> np.ndarray:
        s = expit(scale * h)
        return s + scale * h * s * (1 - s)

    def curvature(h: np.ndarray) -> np.ndarray:
        s = expit(scale * h)
        return scale * s * (1 - s) * (2 + scale * h * (1 - 2 * s))

    return Activation(lambda h: h * expit(scale * h), slope, curvature)


@dataclass(frozen=True)
class Batch:
    """One recorded step: rows of the training set and the learning rate."""

    rows: np.ndarray
    rate: float


@dataclass(frozen=True)
class Examples:
    """Inputs x (n, d) and labels y (n,) of 0 and 1, both float64."""

    x: np.ndarray
    y: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Examples:
        return Examples(self.x[rows], self.y[rows])


def mean_loss(layers: Layers, data: Examples, activation: Activation) -> np.ndarray:
    """Mean cross-entropy (nats); an array where the layers hold several nets."""
    logits = _forward(layers, data.x, activation)[1][-1][..., 0]
    return np.mean(np.logaddexp(0.0, logits) - data.y * logits, axis=-1)


def train(
    layers: Layers,
    data: Examples,
    steps: Sequence[Batch],
    decay: float,
    weights: np.ndarray,
    activation: Activation,
) -> Iterator[Layers]:
    """SGD; the weights w may be (R, n), which trains R nets at once.

    Yields:
        The layers before each step and, last, after them.
    """
    yield layers
    for step in steps:
        w = weights[..., step.rows]
        gradient = gradients(layers, data[step.rows], w, activation)
        share = w.mean(-1)
        layers = [
            p - step.rate * (g + decay * share.reshape(*share.shape, *[1] * _own(k)) * p)
            for k, (p, g) in enumerate(zip(layers, gradient, strict=True))
        ]
        yield layers


def gradients(
    layers: Layers, data: Examples, weights: np.ndarray, activation: Activation
) -> Layers:
    """Gradient of sum_i w_i loss_i / |B| by each layer."""
    inputs, sums = _forward(layers, data.x, activation)
    delta = ((expit(sums[-1][..., 0]) - data.y) * weights / len(data.y))[..., None]
    gradient: Layers = []
    for k in reversed(range(len(sums))):
        gradient = [np.swapaxes(inputs[k], -1, -2) @ delta, delta.sum(-2), *gradient]
        if k:
            back = delta @ np.swapaxes(layers[2 * k], -1, -2)
            delta = back * activation.slope(sums[k - 1])
    return gradient


def influence(
    states: list[Layers],
    data: Examples,
    steps: Sequence[Batch],
    decay: float,
    validation: Examples,
    activation: Activation,
) -> np.ndarray:
    """[H]: I_i += (eta/|B|) <u, grad loss_i + lambda theta>, u -= eta (H + lambda I) u; (n,)."""
    u = gradients(states[-1], validation, np.ones(len(validation.y)), activation)
    result = np.zeros(len(data.y))
    for step, theta in zip(reversed(steps), reversed(states[:-1]), strict=True):
        by_example, product = _along(theta, data[step.rows], u, activation)
        inner = sum(float(np.vdot(p, q)) for p, q in zip(theta, u, strict=True))
        result[step.rows] += step.rate / len(step.rows) * (by_example + decay * inner)
        u = [q - step.rate * (h + decay * q) for q, h in zip(u, product, strict=True)]
    return result


def leave_one_out(
    layers: Layers,
    data: Examples,
    steps: Sequence[Batch],
    decay: float,
    validation: Examples,
    activation: Activation,
) -> np.ndarray:
    """True changes of the validation loss (n,), each image left out of the training in turn."""
    n = len(data.y)
    weights = np.vstack([np.ones(n), 1 - np.eye(n)])
    start = [np.repeat(p[None], n + 1, axis=0) for p in layers]
    *_, final = train(start, data, steps, decay, weights, activation)
    losses = mean_loss(final, validation, activation)
    return losses[1:] - losses[0]


def _own(k: int) -> int:
    """Number of axes of layer k itself: matrices and vectors alternate."""
    return 2 - k % 2


def _forward(layers: Layers, x: np.ndarray, activation: Activation) -> tuple[Layers, Layers]:
    """The input of each affine layer, and its output; the last are the logits (..., n, 1)."""
    inputs, sums = [x], list[np.ndarray]()
    for k in range(len(layers) // 2):
        if k:
            inputs.append(activation.value(sums[-1]))
        sums.append(inputs[-1] @ layers[2 * k] + layers[2 * k + 1][..., None, :])
    return inputs, sums


def _along(
    theta: Layers, data: Examples, q: Layers, activation: Activation
) -> tuple[np.ndarray, Layers]:
    """<q, grad loss_i> (|B|,), and H q of the mean loss, by Pearlmutter's R operator."""
    inputs, sums = _forward(theta, data.x, activation)
    tangents, moved = [np.zeros_like(data.x)], list[np.ndarray]()  # of the inputs, and of the sums
    for k in range(len(sums)):
        if k:
            tangents.append(moved[-1] * activation.slope(sums[k - 1]))
        moved.append(tangents[-1] @ theta[2 * k] + inputs[k] @ q[2 * k] + q[2 * k + 1])
    p, along = expit(sums[-1][:, 0]), moved[-1][:, 0]
    delta = ((p - data.y) / len(p))[:, None]
    curved = (p * (1 - p) * along / len(p))[:, None]
    product: Layers = []
    for k in reversed(range(len(sums))):
        product = [tangents[k].T @ delta + inputs[k].T @ curved, curved.sum(0), *product]
        if k:
            h, back = sums[k - 1], delta @ theta[2 * k].T
            curved = (curved @ theta[2 * k].T + delta @ q[2 * k].T) * activation.slope(h)
            curved += back * activation.curvature(h) * moved[k - 1]
            delta = back * activation.slope(h)
    return (p - data.y) * along, product
