"""Whether the scores of a run can predict what its removals retrain.

Training from scratch, as `-ra` retrains, they can predict where the net has no kinks, the training
is short, the scores cover all epochs, and the sweep is exact (docs/fidelity.md). Without `-ra` they
have to cover the last epoch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.methods import METHODS
from utils.options import Options
from utils.training.network import Network
from utils.training.steps import Step, count_steps, learning_rates

KINKS = frozenset(
    (
        *("ReLU", "LeakyReLU", "PReLU", "CReLU", "ReLU6", "SELU", "HardSigmoid", "HardTanh"),
        *("MaxPooling", "Max", "Min", "Maximum2", "Minimum2", "MaximumScalar", "MinimumScalar"),
        *("Abs", "AbsoluteError", "Sort", "TopKData", "Sign", "Round", "Floor", "Ceil", "Mod2"),
        *("Greater", "GreaterEqual", "GreaterScalar", "GreaterEqualScalar"),
        *("Less", "LessEqual", "LessScalar", "LessEqualScalar", "BinarySigmoid", "BinaryTanh"),
        *("BinaryConnectAffine", "BinaryConnectConvolution", "INQAffine", "INQConvolution"),
        *("BinaryWeightAffine", "BinaryWeightConvolution", "Prune", "FixedPointQuantize"),
        *("MinMaxQuantize", "Pow2Quantize", "QuantizeLinear"),
        *("DeformableConvolution", "EpsilonInsensitiveLoss"),
    )
)
"""nnabla's functions whose derivative, or value, jumps."""
NORMS = ("Norm", "NormNormalization")
"""Functions with kinks if p is 1."""
FUSED_KINKS = ("relu", "leaky_relu", "relu6")
"""Nonlinearities with kinks that a fused function may have."""
EXACT = ("Hara_exact", "Hara_smoothed")
"""The methods with the exact sweep over the true states."""
SLOW = 0.1
"""A lower share of the learning rate in the last epoch is remarked where removals retrain it."""
LONG = 2.0
"""The longest training that is not remarked, as the sum of its learning rates over 1 - momentum.

For groups of 10 % of MNIST, Spearman's correlation of the exact sweep with training from scratch
was .85 to .99 in trainings without augmentation up to that length; above it, at a constant rate and
in batches of 64, it was .43 to .85 (docs/fidelity.md).
"""


def remark_on_retraining(options: Options, network: Network, n_train: int) -> str:
    """Why the scores say little about the retraining after a removal, with the remedy.

    Args:
        options: of the run.
        network: that is trained.
        n_train: training images.

    Returns:
        A sentence; empty where nothing is missing. Where no method predicts what a removal changes,
        it can only tell that the retraining changes nothing.
    """
    predicting = [name for name in options.methods if METHODS[name].predicts]
    if not options.retrain_all:
        of_sweep = _of_last_epoch(options, predicting)
        return "; ".join(filter(None, (_of_slow_end(options, n_train), of_sweep)))
    if not predicting:
        return ""
    kinks = kinks_in(network)
    reasons, extent = _reasons(options, predicting, kinks), "predict"
    if not kinks and _with_sweep(predicting):  # the remedy for kinks, a preset, sets another rate
        extent = "predict" if reasons else "may predict"
        reasons |= _too_long(options, n_train)
    if not reasons:
        return ""
    why, remedy = ", ".join(reasons), " ".join(reasons.values())
    return (
        f"-ra retrains from the first step, which these scores {extent} poorly "
        f"(docs/fidelity.md): {why}; use {remedy}"
    )


def remark_on_method(options: Options, method: str) -> str:
    """The same of a method that is chosen after the training: that its sweep is not exact."""
    if not options.retrain_all or method in EXACT or not METHODS[method].predicts:
        return ""
    return (
        f"-ra retrains from the first step, which the scores by {method} predict poorly "
        f"(docs/fidelity.md); use {EXACT[0]}"
    )


def remark_on_steps(steps: Sequence[Step], momentum: float, network: Network) -> str:
    """Why scores over recorded steps say little about repeating them without an image.

    Args:
        steps: of a user's own loop.
        momentum: of its solver.
        network: that it trains.

    Returns:
        A sentence; empty for steps of one epoch, in which no image comes twice, and for short
        trainings of a net without kinks.
    """
    seen = np.bincount(np.concatenate([step.indices for step in steps]))
    kinks = kinks_in(network)
    length = _length(np.array([step.learning_rate for step in steps]), momentum)
    if seen.max() < 2 or not (kinks or _is_long(length)):
        return ""
    reason = f"the net has kinks ({', '.join(kinks)})"
    if not kinks:
        reason = (
            f"their learning rates over 1 - momentum add up to {length:.3g}, more than {LONG:g}"
        )
    return (
        "the recorded steps are of more than one epoch, and what repeating them without an image "
        f"changes is predicted poorly: {reason} (docs/how_it_works.md, Training from scratch); "
        "record the last epoch alone, or train a net without kinks at a lower learning rate"
    )


def _of_slow_end(options: Options, n_train: int) -> str:
    """That the schedule leaves the last epoch, which removals retrain, next to no learning rate."""
    if not (any(options.remove_n_list) or options.verify):
        return ""
    n_steps = count_steps(n_train, options.n_epochs, options.batch_size)
    rates = learning_rates(options.lr_schedule, options.lr, n_steps)
    share = float(rates[-(n_steps // options.n_epochs) :].mean()) / options.lr
    if share >= SLOW:
        return ""
    return (
        f"removals retrain only the last epoch, where --lr_schedule {options.lr_schedule} leaves "
        f"{100 * share:.2g} % of the learning rate, so they change next to nothing; use "
        "--lr_schedule constant, or -ra"
    )


def _of_last_epoch(options: Options, predicting: Sequence[str]) -> str:
    covered = options.n_covered_epochs
    if covered == 1 or not _with_sweep(predicting):
        return ""
    return (
        f"the scores cover {covered} epochs and predict what leaving an image out of all of them "
        "changes, but removals retrain only the last epoch; use --cover_epochs 1, or -ra"
    )


def _with_sweep(methods: Sequence[str]) -> list[str]:
    """Those of the methods that sweep over the epochs of `--cover_epochs`."""
    return [name for name in methods if METHODS[name].sweeps]


def _reasons(options: Options, predicting: Sequence[str], kinks: Sequence[str]) -> dict[str, str]:
    """Each reason with the options that mend it."""
    reasons, sweeping = {}, _with_sweep(predicting)
    few = options.n_covered_epochs < options.n_epochs
    if kinks:
        chosen = options.preset or options.model != Options.model
        own = f" (not --model {options.model})" if chosen else ""
        reasons[f"the net has kinks ({', '.join(kinks)})"] = f"--preset smooth{own}"
    if few and sweeping:
        last = f"last {options.n_covered_epochs}" if options.n_covered_epochs > 1 else "last"
        uncovered = f"the scores cover only the {last} of {options.n_epochs} epochs"
        reasons[uncovered] = "--cover_epochs all"
    if not set(EXACT) & set(predicting):
        inexact = f"no exact sweep among the methods ({', '.join(predicting)})"
        reasons[inexact] = f"--methods {EXACT[0]}"
        reasons[inexact] += " --cover_epochs all" if few and not sweeping else ""
    return reasons


def _too_long(options: Options, n_train: int) -> dict[str, str]:
    """That the training is longer than `LONG`, with a learning rate at which it is not."""
    n_steps = count_steps(n_train, options.n_epochs, options.batch_size)
    rates = learning_rates(options.lr_schedule, options.lr, n_steps)
    length = _length(rates, options.momentum)
    if not _is_long(length):
        return {}
    divided = f", over 1 - {options.momentum:g} of momentum," if options.momentum else ""
    reason = (
        f"the learning rates of the {n_steps:,} steps{divided} add up to {length:,.2f}, more than "
        f"{LONG:g}"
    )
    lower = _rounded_down(options.lr * LONG / length)
    return {reason: f"--lr {lower}, or fewer epochs; the net then learns less"}


def _length(rates: np.ndarray, momentum: float) -> float:
    """How far a training goes: the sum of its learning rates (T,) over 1 - momentum."""
    return float(rates.sum()) / (1 - momentum)


def _is_long(length: float) -> bool:
    """Whether a length is more than `LONG`, also as it is printed."""
    return length >= LONG + 0.005


def _rounded_down(value: float) -> str:
    """Two significant digits of a positive number, not above it but for rounding."""
    value *= 1 + 1e-9
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.floor(value / unit) * unit:.2g}"


def kinks_in(network: Network) -> tuple[str, ...]:
    """The functions of a net that have kinks, by nnabla's names, sorted; empty for a smooth net."""
    return tuple(sorted({name for name, args in network.functions() if _has_kink(name, args)}))


def _has_kink(name: str, args: dict[str, Any]) -> bool:
    if name in NORMS:
        return bool(args["p"] == 1)
    return name in KINKS or args.get("nonlinearity") in FUSED_KINKS or _elu_scale(name, args) != 1


def _elu_scale(name: str, args: dict[str, Any]) -> float:
    """The alpha of an ELU, whose slope at 0 does not jump if it is 1; 1 for what is none."""
    if args.get("nonlinearity") == "elu":
        return float(args["nonlinearity_args"][0])
    return float(args["alpha"]) if name in ("ELU", "CELU") else 1.0
