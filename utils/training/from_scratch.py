"""Whether the scores of a run can predict what its removals retrain.

Training from scratch, as `-ra` retrains, they can predict where the net has no kinks, the scores
cover all epochs, and the sweep is exact (docs/fidelity.md). Without `-ra` they have to cover the
last epoch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.methods import METHODS
from utils.options import Options
from utils.training.network import Network

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
FUSED_KINKS = ("relu", "leaky_relu", "relu6")
"""Nonlinearities with kinks that a fused function may have."""
EXACT = ("Hara_exact", "Hara_smoothed")
"""The methods with the exact sweep over the true states."""


def remark_on_retraining(options: Options, network: Network) -> str:
    """Why the scores say little about the retraining after a removal, with the remedy.

    Returns:
        A sentence; empty with one epoch, which is the whole training, where no method predicts
        what a removal changes, and where nothing is missing.
    """
    predicting = [name for name in options.methods if METHODS[name].predicts]
    if options.n_epochs == 1 or not predicting:
        return ""
    if not options.retrain_all:
        return _of_last_epoch(options, predicting)
    reasons = _reasons(options, predicting, kinks_in(network))
    if not reasons:
        return ""
    why, remedy = ", ".join(reasons), " ".join(reasons.values())
    return (
        "-ra retrains from the first step, which these scores predict poorly (docs/fidelity.md): "
        f"{why}; use {remedy}"
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


def kinks_in(network: Network) -> tuple[str, ...]:
    """The functions of a net that have kinks, by nnabla's names, sorted; empty for a smooth net."""
    return tuple(sorted({name for name, args in network.functions() if _has_kink(name, args)}))


def _has_kink(name: str, args: dict[str, Any]) -> bool:
    return name in KINKS or args.get("nonlinearity") in FUSED_KINKS or _elu_scale(name, args) != 1


def _elu_scale(name: str, args: dict[str, Any]) -> float:
    """The alpha of an ELU, whose slope at 0 does not jump if it is 1; 1 for what is none."""
    if args.get("nonlinearity") == "elu":
        return float(args["nonlinearity_args"][0])
    return float(args["alpha"]) if name in ("ELU", "CELU") else 1.0
