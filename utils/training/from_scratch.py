"""Whether the scores of a run can predict training from scratch, which `-ra` is about.

They can where the net has no kinks, the scores cover all epochs, and the sweep is exact
(docs/fidelity.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.methods import METHODS
from utils.options import Options
from utils.presets import preset_of
from utils.training.network import Network

KINKS = frozenset(
    (
        *("ReLU", "LeakyReLU", "PReLU", "CReLU", "ReLU6", "SELU", "HardSigmoid", "HardTanh"),
        *("MaxPooling", "Max", "Min", "Maximum2", "Minimum2", "MaximumScalar", "MinimumScalar"),
        *("Abs", "AbsoluteError", "Sort", "TopKData", "Sign", "Round", "Floor", "Ceil"),
        *("Greater", "GreaterEqual", "GreaterScalar", "GreaterEqualScalar"),
        *("Less", "LessEqual", "LessScalar", "LessEqualScalar", "BinarySigmoid", "BinaryTanh"),
        *("BinaryConnectAffine", "BinaryConnectConvolution", "INQAffine", "INQConvolution"),
        *("BinaryWeightAffine", "BinaryWeightConvolution", "Prune", "FixedPointQuantize"),
        *("MinMaxQuantize", "Pow2Quantize", "QuantizeLinear"),
    )
)
"""nnabla's functions whose derivative, or value, jumps."""
RELUS = ("relu", "leaky_relu")
"""Nonlinearities with kinks that a fused function may have."""
SMOOTH_PRESET = "smooth"
EXACT = ("Hara_exact", "Hara_smoothed")
"""The methods with the exact sweep over the true states."""


def remarks_on_scratch(options: Options, network: Network) -> list[str]:
    """Why the scores say little about training from scratch, with the remedy: one sentence.

    None without `-ra`, with one epoch, where the last epoch is the whole training, and where
    no method predicts what a removal changes.
    """
    predicting = [name for name in options.methods if METHODS[name].predicts]
    if not options.retrain_all or options.n_epochs == 1 or not predicting:
        return []
    reasons = _reasons(options, predicting, kinks_in(network))
    if not reasons:
        return []
    why, remedy = ", ".join(reasons), " ".join(reasons.values())
    return [
        "-ra retrains from the first step, which these scores predict poorly (docs/fidelity.md): "
        f"{why}; use {remedy}"
    ]


def _reasons(options: Options, predicting: Sequence[str], kinks: Sequence[str]) -> dict[str, str]:
    """Each reason with the options that mend it."""
    reasons = {}
    if kinks:
        reasons[f"the net has kinks ({', '.join(kinks)})"] = _remedy_of_kinks(options)
    if options.n_covered_epochs < options.n_epochs:
        last = f"last {options.n_covered_epochs}" if options.n_covered_epochs > 1 else "last"
        uncovered = f"the scores cover only the {last} of {options.n_epochs} epochs"
        reasons[uncovered] = "--cover_epochs all"
    if not set(EXACT) & set(predicting):
        inexact = f"no exact sweep among the methods ({', '.join(predicting)})"
        reasons[inexact] = f"--methods {EXACT[0]}"
    return reasons


def _remedy_of_kinks(options: Options) -> str:
    """The options of a net without kinks; a preset alone leaves a model that is given."""
    remedy = [] if options.preset == SMOOTH_PRESET else [f"--preset {SMOOTH_PRESET}"]
    if not remedy or options.model != Options.model:
        remedy.append(f"--model {preset_of(SMOOTH_PRESET).options['model']}")
    return " ".join(remedy)


def kinks_in(network: Network) -> tuple[str, ...]:
    """The functions of a net that have kinks, by nnabla's names, sorted; empty for a smooth net."""
    return tuple(sorted({name for name, args in network.functions() if _has_kink(name, args)}))


def _has_kink(name: str, args: dict[str, Any]) -> bool:
    elu = (
        name in ("ELU", "CELU") and args["alpha"] != 1
    )  # with 1 its slope is the same on both sides
    return name in KINKS or elu or args.get("nonlinearity") in RELUS
