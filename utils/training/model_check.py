"""Whether a model can be trained, replayed and scored; reported in one line if not."""

from __future__ import annotations

import logging
import re
from functools import cache

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.backward_functions import registry

from utils.errors import UserError
from utils.kernels.batch_norm import weighted_batch_normalization
from utils.training.activations import check_memory_of
from utils.training.adjoint import StepAdjoint
from utils.training.device import machine_failure
from utils.training.models import Model, describe, find_model, is_nnp
from utils.training.network import Network
from utils.training.nnp_file import ONLY_TRAINING
from utils.training.nnp_net import NnpNet
from utils.training.sgd import Optimiser

log = logging.getLogger("data_cleansing")

COUPLING = 1e-3
"""Largest relative difference of logits with an image of weight 0 and without the image."""


def checked_model(name: str, image_shape: tuple[int, ...], n_classes: int) -> Model:
    """Find a model and look, on the graphs of a small batch, at what the scores need of it.

    Args:
        name: as in `--model`.
        image_shape: (C, H, W).
        n_classes: number of classes K.

    Raises:
        UserError: there is no such model; the function raises, returns no (|B|, K) logits or makes
            no parameters, or some that only one of its graphs uses; it uses random functions or
            ones without a second derivative (named), or mixes the images of a batch other than by
            batch normalisation in training; three images take more memory than there is.
    """
    net = find_model(name) if is_nnp(name) else None
    return check_once(name, net, image_shape, n_classes)


@cache
def check_once(name: str, net: Model | None, image_shape: tuple[int, ...], n_classes: int) -> Model:
    """As `checked_model`, once in this process for each name and content of a .nnp file.

    Args:
        name: as in `--model`.
        net: of a .nnp file, else None.
        image_shape: (C, H, W).
        n_classes: number of classes K.
    """
    model = net or find_model(name)
    smaller = "give a smaller --image_size"
    check_model(f"--model {name}", model, image_shape, n_classes, smaller)
    if isinstance(model, NnpNet) and model.remark:
        log.warning("--model %s: %s", name, model.remark)
    return model


def check_model(
    who: str,
    model: Model,
    image_shape: tuple[int, ...],
    n_classes: int,
    smaller: str = "give smaller images",
) -> None:
    """Look, on the graphs of a small batch, at what the scores need of a model.

    Args:
        who: what errors call the model.
        model: the function that builds the graph.
        image_shape: (C, H, W).
        n_classes: number of classes K.
        smaller: the remedy where three images take too much memory.

    Raises:
        UserError: as `checked_model`.
    """
    try:
        network = Network(model, image_shape, n_classes)
        logits = network.logits(nn.Variable((3, *image_shape)), test=False)
        _check_logits(logits, n_classes)
        _check_parameters(network, logits)
        _check_functions(logits)
        check_memory_of(logits, logits.shape[0], scored=True, remedy=smaller)
        _check_scoring(network)
        if problem := coupling(network):
            raise _NotScorable(problem)
    except _NotScorable as unfit:
        raise UserError(f"{who}: {unfit}") from unfit.__cause__
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        _reraise_machine_failure(error)
        raise UserError(f"{who}: {_failure(error, image_shape)}") from error


class _NotScorable(Exception):
    """Why a model cannot be scored, and the remedy."""


def _check_logits(logits: object, n_classes: int) -> None:
    if not isinstance(logits, nn.Variable) or logits.shape != (3, n_classes):
        shape = getattr(logits, "shape", type(logits).__name__)
        must = f"it must return logits of shape (3, {n_classes})"
        raise _NotScorable(f"gave {shape} for a batch of 3 images; {must}")
    if logits.parent is not None and logits.parent.info.type_name == "Softmax":
        raise _NotScorable("returns probabilities; return the logits, without softmax")


def _check_parameters(network: Network, logits: nn.Variable) -> None:
    """Refuse a net whose training graph, with these logits, has more or fewer parameters."""
    if not network.theta:
        raise _NotScorable("has no parameters to train; use nnabla's PF functions")
    for name in network.parameters():
        if name not in network.theta | network.statistics:  # those of the graph for evaluation
            raise _NotScorable(f"makes parameter {name} only with test=False; make it with both")
    inputs: list[nn.Variable] = []
    logits.visit(lambda function: inputs.extend(function.inputs))
    for name, parameter in network.theta.items():
        if parameter not in inputs:
            what = f"no gradient reaches parameter {name} in training"
            remedy = "use it there, freeze it with fix_parameters=True, or leave it out"
            raise _NotScorable(f"{what}; {remedy}")


def _failure(error: BaseException, image_shape: tuple[int, ...]) -> str:
    """What a model's own error means."""
    if "size of existing parameter" in str(error):
        return (
            "two layers of one name differ in shape; give each its own, as in "
            'PF.affine(h, 10, name="last")'
        )
    return f"fails on images of shape {image_shape} ({describe(error)})"


def _reraise_machine_failure(error: BaseException) -> None:
    """Raise it again where the GPU or too little memory caused it, not the model."""
    if isinstance(error, RuntimeError) and machine_failure(error):
        raise error


def _check_functions(logits: nn.Variable) -> None:
    used: set[str] = set()
    logits.visit(lambda function: used.add(function.info.type_name))
    random = sorted(t for t in used if t.startswith("Rand") or t in ONLY_TRAINING)
    if random:
        what = f"uses {', '.join(random)}, which gives other values in every replay of a step"
        raise _NotScorable(f"{what}; leave it out")
    if stopped := _stopped(logits):
        what = f"stops a gradient (need_grad=False after {stopped}), so that a training step does"
        raise _NotScorable(f"{what} not follow the gradient of the loss; leave that out")
    without = ", ".join(sorted(used - set(registry)))
    if without:
        raise _NotScorable(f"{without} has no second derivative in nnabla, replace it")


def _stopped(logits: nn.Variable) -> str:
    """A function with a gradient whose output is used without one; empty if there is none."""
    found: list[str] = []

    def look(function: nn.function.Function) -> None:
        for parent in (v.parent for v in function.inputs if v.parent and not v.need_grad):
            if any(i.need_grad for i in parent.inputs):
                found.append(parent.info.type_name)

    logits.visit(look)
    return found[0] if found else ""


def _check_scoring(network: Network) -> None:
    adjoint_of = StepAdjoint(network, Optimiser())
    ones = {key: np.ones(p.shape) for key, p in (network.theta | network.statistics).items()}
    x, y = np.zeros((2, *network.image_shape), np.float32), np.zeros((2, 1))
    try:
        adjoint_of.derivatives(x, y, ones, ones)
    except Exception as error:
        _reraise_machine_failure(error)
        named = re.search(r"(\w+)_backward\b", str(error))
        function = f"{named[1]} has no second derivative" if named else "no second derivative"
        raise _NotScorable(f"{function} in nnabla, replace it ({describe(error)})") from error


def coupling(network: Network) -> str:
    """How the images of a batch count for each other where they must not; empty if nowhere.

    In training an image of weight 0 must count for the others as if it were not there, in
    evaluation no image may count for another.
    """
    return _coupling_to(network, 0) or _coupling_to(network, 2)


def _coupling_to(network: Network, number: int) -> str:
    """The same of one of three images."""
    images = np.random.default_rng(0).standard_normal((3, *network.image_shape))
    others = np.delete(np.arange(3), number)
    x, two = (nn.Variable.from_numpy_array(some) for some in (images, images[others]))
    weights = (np.arange(3) != number)[:, None]
    with weighted_batch_normalization(nn.Variable.from_numpy_array(weights)):
        weighted = network.logits(x, test=False)
    alone = network.logits(two, test=False)
    F.sink(weighted, alone).forward()
    if _apart(weighted.d[others], alone.d):
        return (
            "mixes the images of a batch other than by batch normalization, so that the images "
            "cannot be scored one by one"
        )
    evaluated, two_evaluated = (network.logits(some, test=True) for some in (x, two))
    F.sink(evaluated, two_evaluated).forward()
    if _apart(evaluated.d[others], two_evaluated.d):
        return (
            "its logits with test=True depend on the other images of a batch; give batch "
            "normalization batch_stat=not test"
        )
    return ""


def _apart(found: np.ndarray, alone: np.ndarray) -> bool:
    """Whether the logits of two images with a third in the batch differ from those without it."""
    return bool(np.abs(found - alone).max() > COUPLING * np.abs(alone).max())
