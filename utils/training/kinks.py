"""Which functions of a net have kinks or jumps, so that its training is not smooth."""

from __future__ import annotations

from typing import Any

from utils.training.network import Network

KINKS = frozenset(
    "ReLU LeakyReLU PReLU CReLU ReLU6 SELU HardSigmoid HardTanh Abs AbsoluteError "
    "MaxPooling Max Min Maximum2 Minimum2 MaximumScalar MinimumScalar Sort TopKData "
    "Sign Round Floor Ceil Greater GreaterEqual GreaterScalar GreaterEqualScalar "
    "Less LessEqual LessScalar LessEqualScalar BinarySigmoid BinaryTanh "
    "BinaryConnectAffine BinaryConnectConvolution BinaryWeightAffine BinaryWeightConvolution "
    "INQAffine INQConvolution FixedPointQuantize MinMaxQuantize Pow2Quantize QuantizeLinear "
    "Prune".split()
)
"""nnabla's functions whose derivative, or value, jumps."""
RELUS = ("relu", "leaky_relu")
"""Nonlinearities with kinks that a fused function may have."""


def kinks_in(network: Network) -> tuple[str, ...]:
    """The functions of a net that have kinks, by nnabla's names, sorted; empty for a smooth net."""
    return tuple(sorted({name for name, args in network.functions() if _has_kink(name, args)}))


def _has_kink(name: str, args: dict[str, Any]) -> bool:
    elu = name == "ELU" and args["alpha"] != 1  # with 1 its slope is the same on both sides
    return name in KINKS or elu or args.get("nonlinearity") in RELUS
