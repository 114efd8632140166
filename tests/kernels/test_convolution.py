"""The fast functions equal nnabla's own, in value and in first and second derivatives."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from tests.helpers.tiny import digit_images
from utils.kernels.convolution import (
    ROWS,
    Geometry,
    convolve,
    input_gradient,
    weight_gradient,
)
from utils.kernels.fast_functions import fast_functions
from utils.training.adjoint import StepAdjoint
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import plan_steps

TOLERANCE = 1e-5

#        batch, channels, height, width, maps, kernel, pad, stride
CASES = [
    pytest.param(3, 3, 8, 8, 4, (3, 3), (1, 1), (1, 1), id="3x3 pad 1"),
    pytest.param(3, 2, 7, 5, 4, (1, 1), (0, 0), (1, 1), id="1x1"),
    pytest.param(3, 2, 7, 5, 4, (1, 1), (0, 0), (2, 2), id="1x1 stride 2"),
    pytest.param(2, 2, 9, 6, 3, (5, 5), (2, 2), (1, 1), id="5x5 pad 2"),
    pytest.param(2, 2, 9, 6, 3, (5, 5), (0, 0), (2, 2), id="5x5 stride 2"),
    pytest.param(2, 1, 8, 8, 3, (3, 3), (1, 1), (2, 2), id="3x3 pad 1 stride 2, even"),
    pytest.param(2, 1, 9, 7, 3, (3, 3), (1, 1), (2, 2), id="3x3 pad 1 stride 2, odd"),
    pytest.param(2, 2, 5, 6, 3, (3, 3), (2, 2), (1, 1), id="3x3 pad 2"),
    pytest.param(2, 2, 5, 6, 3, (1, 1), (2, 2), (1, 1), id="pad above the kernel"),
    pytest.param(2, 2, 6, 7, 3, (2, 3), (0, 1), (1, 2), id="nothing square"),
    pytest.param(19, 1, 8, 8, 2, (3, 3), (1, 1), (1, 1), id="batch no multiple of the chunk"),
    pytest.param(19, 1, 16, 16, 2, (3, 3), (1, 1), (2, 2), id="the same with stride 2"),
    pytest.param(1, 1, 34, 33, 2, (3, 3), (1, 1), (1, 1), id="one image above the chunk"),
    pytest.param(3, 9, 8, 8, 8, (3, 3), (1, 1), (1, 1), id="whole tiles"),
    pytest.param(2, 8, 9, 6, 9, (3, 3), (1, 1), (1, 1), id="cut tiles"),
    pytest.param(2, 8, 7, 8, 8, (3, 3), (0, 0), (1, 1), id="tiles without pad"),
    pytest.param(2, 8, 4, 5, 9, (3, 3), (2, 2), (1, 1), id="tiles, pad 2"),
    pytest.param(2, 8, 7, 4, 8, (3, 3), (0, 2), (1, 1), id="tiles, pads differ"),
    pytest.param(19, 64, 16, 16, 9, (3, 3), (1, 1), (1, 1), id="tiles of several chunks"),
]


def relative(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


def variable(rng: np.random.Generator, *shape: int) -> nn.Variable:
    values = rng.standard_normal(shape).astype(np.float32)
    return nn.Variable.from_numpy_array(values, need_grad=True)


def twice_differentiated(arguments, pad, stride, q, context):
    """y, its gradients by all arguments, and the derivatives of <q, gradients> and of y^3."""
    with context:
        y = F.convolution(*arguments, pad=pad, stride=stride)
        gradients = nn.grad([F.sum(y * y * y)], arguments)
    inner = sum(F.sum(q_k * g) for q_k, g in zip(q, gradients, strict=True))
    leaves = [*arguments, *q]
    for leaf in leaves:
        leaf.grad.zero()
    nn.forward_all([y, *gradients, inner])
    inner.backward()
    values = [v.d.copy() for v in (y, *gradients)]
    return values + [leaf.g.copy() for leaf in leaves]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("batch, channels, height, width, maps, kernel, pad, stride", CASES)
def test_value_and_two_derivatives_equal_nnablas(
    batch, channels, height, width, maps, kernel, pad, stride, with_bias
):
    rng = np.random.default_rng(0)
    shapes = [(batch, channels, height, width), (maps, channels, *kernel), (maps,)]
    shapes = shapes if with_bias else shapes[:2]
    arguments = [variable(rng, *shape) for shape in shapes]
    q = [variable(rng, *shape) for shape in shapes]
    stock = twice_differentiated(arguments, pad, stride, q, nullcontext())
    fast = twice_differentiated(arguments, pad, stride, q, fast_functions())
    for value, truth in zip(fast, stock, strict=True):
        assert value.shape == truth.shape
        assert relative(value, truth) < TOLERANCE


def test_the_cases_reach_more_than_one_chunk_and_an_unfilled_one():
    geometry = Geometry((19, 8, 8, 1), (2, 1, 3, 3), (1, 1), (1, 1))
    chunks = list(geometry.chunks())
    assert geometry.chunk_size == ROWS // 64 == 16
    assert chunks == [slice(0, 16), slice(16, 19)]
    tiled = Geometry((19, 16, 16, 64), (9, 64, 3, 3), (1, 1), (1, 1))
    assert tiled.tiled and 1 < tiled.chunk_size < 19 and 19 % tiled.chunk_size


def test_gradients_are_added_where_nnabla_asks_for_it_and_only_where_needed():
    rng = np.random.default_rng(1)
    x, w, b = variable(rng, 2, 3, 6, 6), variable(rng, 3, 3, 3, 3), variable(rng, 3)
    fixed = nn.Variable.from_numpy_array(x.d.copy(), need_grad=False)
    results = []
    for context in (nullcontext(), fast_functions()):
        with context:
            h = F.convolution(x, w, b, pad=(1, 1))
            y = F.convolution(h, w, b, pad=(1, 1)) + h + F.convolution(fixed, w, pad=(1, 1))
        for leaf in (x, w, b, fixed):
            leaf.g = 2.0
        y.forward(clear_no_need_grad=True)
        y.backward(clear_buffer=True)
        results.append([leaf.g.copy() for leaf in (x, w, b, fixed)])
    for value, truth in zip(results[1], results[0], strict=True):
        assert relative(value, truth) < TOLERANCE
    assert (results[1][3] == 2.0).all()


KINKED = {"ReLU": "MapReLU", "MaxPooling": "MapMaxPooling"}
SMOOTH = {"Swish": "MapSwish", "AveragePooling": "MapAveragePooling"}


def small_net(leaves, running, batch_stat, smooth):
    """Convolution, BatchNorm, an activation, pooling."""
    x, w, gamma, beta = leaves
    h = F.convolution(x, w, pad=(1, 1))
    h = F.batch_normalization(h, beta, gamma, *running, batch_stat=batch_stat)
    return F.average_pooling(F.swish(h), (2, 3)) if smooth else F.max_pooling(F.relu(h), (2, 3))


@pytest.mark.parametrize("smooth", [False, True], ids=["ReLU, max", "Swish, average"])
@pytest.mark.parametrize("batch_stat", [True, False], ids=["training", "test"])
def test_batch_norm_activation_and_pooling_equal_nnablas_and_repeat(batch_stat, smooth):
    results = [small_net_differentiated(fast, batch_stat, smooth) for fast in (False, True, True)]
    for value, truth, again in zip(results[1], results[0], results[2], strict=True):
        assert relative(value, truth) < TOLERANCE
        assert value.tobytes() == again.tobytes()


def small_net_differentiated(fast, batch_stat, smooth):
    """y, its gradients, derivatives of <q, gradients>, and the running statistics afterwards."""
    rng = np.random.default_rng(10)
    one = (1, 5, 1, 1)
    leaves = [variable(rng, *s) for s in ((4, 2, 6, 6), (5, 2, 3, 3), one, one)]
    running = [nn.Variable.from_numpy_array(rng.uniform(1, 2, one)) for _ in range(2)]
    q = [variable(rng, *leaf.shape) for leaf in leaves]
    with fast_functions() if fast else nullcontext():
        y = small_net(leaves, running, batch_stat, smooth)
    functions = SMOOTH if smooth else KINKED
    assert type_names(y).issuperset(functions.values() if fast else functions)
    assert ("MapAffine" in type_names(y)) == fast
    gradients = nn.grad([F.sum(y**3)], leaves)
    inner = sum(F.sum(q_k * g) for q_k, g in zip(q, gradients, strict=True))
    for leaf in (*leaves, *q):
        leaf.grad.zero()
    nn.forward_all([y, *gradients, inner])
    inner.backward()
    values = [v.d.copy() for v in (y, *gradients, *running)]
    return values + [leaf.g.copy() for leaf in (*leaves, *q)]


def type_names(y):
    names = set()
    y.visit(lambda f: names.add(f.info.type_name))
    return names


@pytest.mark.parametrize("name", ["relu", "swish"])
def test_activations_of_what_lies_channels_first_stay_nnablas(name):
    x, w = nn.Variable((2, 1, 6, 6)), nn.Variable((3, 1, 3, 3))
    with fast_functions():
        fast = getattr(F, name)(F.convolution(x, w))
        stock = [getattr(F, name)(h) for h in (F.tanh(fast), F.affine(fast, nn.Variable((48, 5))))]
    lower = {type_name.lower() for y in stock for type_name in type_names(y)}
    assert {"map" + name, name} <= lower
    assert name not in {type_name.lower() for type_name in type_names(fast)}


def test_sums_of_what_lies_channels_last_lie_so_too():
    rng = np.random.default_rng(14)
    x, w, one = variable(rng, 2, 1, 6, 6), variable(rng, 3, 1, 3, 3), variable(rng, 1, 3, 1, 1)
    with fast_functions():
        h, other = F.convolution(x, w), F.convolution(2.0 * x, w)
        fast, mixed, broadcast = h + other, h + F.tanh(h), h + one
        named = F.add2(x0=h, x1=other)
    nn.forward_all([h, other, fast, named, mixed, broadcast])
    for both in (fast, named):
        assert both.parent.info.type_name == "Transpose"
        assert (both.d == h.d + other.d).all()
    assert mixed.d == pytest.approx(h.d + np.tanh(h.d), abs=1e-6)
    assert (broadcast.d == h.d + one.d).all()
    assert {y.parent.info.type_name for y in (mixed, broadcast)} == {"Add2"}


POOLINGS: list[tuple[bool, tuple[int, int], dict[str, Any]]] = [
    (True, (2, 2), {}),
    (True, (4, 2), {"stride": (4, 2), "pad": (0, 0), "ignore_border": False}),
    (False, (3, 3), {}),
    (False, (3, 3), {"ignore_border": False}),
    (False, (2, 2), {"stride": (1, 1)}),
    (False, (2, 2), {"stride": (2, 1)}),
    (False, (2, 2), {"pad": (1, 1)}),
    (False, (4, 4), {"pad": (0, 2), "ignore_border": False}),
    (False, (5, 5), {"pad": (1, 1)}),
]
"""Whether the fast function takes these windows of maps of 4 x 4, and the arguments."""


@pytest.mark.parametrize("fast, kernel, options", POOLINGS)
@pytest.mark.parametrize("name", ["max_pooling", "average_pooling"])
def test_pooling_equals_nnablas_which_does_what_the_fast_one_cannot(name, fast, kernel, options):
    more = [{}, {"including_pad": False}] if name == "average_pooling" else [{}]
    rng = np.random.default_rng(13)
    x, w = variable(rng, 2, 1, 6, 6), variable(rng, 3, 1, 3, 3)
    for others in more:
        with fast_functions():
            y = getattr(F, name)(F.convolution(x, w), kernel, **options, **others)
        stock = getattr(F, name)(F.convolution(x, w), kernel, **options, **others)
        nn.forward_all([y, stock])
        assert y.d == pytest.approx(stock.d, abs=1e-5)
        assert (y.parent.info.type_name == "Transpose") == fast


@pytest.mark.parametrize("name", ["max_pooling", "average_pooling"])
def test_pooling_that_names_its_axes_or_outputs_stays_nnablas(name):
    x, w = nn.Variable((2, 1, 6, 6)), nn.Variable((4, 1, 3, 3))
    with fast_functions():
        h = F.convolution(x, w)
        last = getattr(F, name)(h, (2, 2), channel_last=True)
        named = getattr(F, name)(h, (2, 2), n_outputs=1)
    assert last.shape == (2, 2, 2, 4)  # of maps (2, 4, 4, 4)
    kinds = {y.parent.info.type_name.lower() for y in (last, named)}
    assert kinds == {name.replace("_", "")}


def scores(model, shape, conv, kink_width=0.0, batch=4):
    """All second derivatives of the scoring graph of a net."""
    rng = np.random.default_rng(2)
    network = Network(MODELS[model], shape, 10, seed=3, conv=conv)
    adjoint = StepAdjoint(network, Optimiser(), kink_width=kink_width)
    state = network.theta | network.statistics
    direction = {name: rng.standard_normal(p.shape) for name, p in state.items()}
    x, y = rng.standard_normal((batch, *shape)), rng.integers(0, 10, (batch, 1))
    weights, theta, statistics = adjoint.derivatives(x, y, direction, direction)
    return {"w": weights} | theta | statistics


@pytest.mark.parametrize(
    "model, shape, kink_width, tolerance",
    [
        ("six_convolutions", (1, 8, 8), 0.0, TOLERANCE),
        ("six_convolutions", (1, 8, 8), 0.3, TOLERANCE),
        ("resnet", (1, 8, 8), 0.0, TOLERANCE),
        ("resnet", (3, 9, 11), 0.0, TOLERANCE),
        ("smooth_convolutions", (1, 8, 8), 0.0, 1.5 * TOLERANCE),  # one BatchNorm after the other
        ("smooth_resnet", (1, 8, 8), 0.0, TOLERANCE),
        ("smooth_resnet", (3, 9, 11), 0.0, TOLERANCE),
    ],
)
def test_scoring_graphs_equal_nnablas(model, shape, kink_width, tolerance):
    stock = scores(model, shape, "nnabla", kink_width)
    fast = scores(model, shape, "fast", kink_width)
    largest = max(np.linalg.norm(truth) for truth in stock.values())
    for name, truth in stock.items():  # the sums that biases before BatchNorm have cancel
        error = np.linalg.norm(fast[name] - truth)
        assert error < tolerance * max(np.linalg.norm(truth), 0.03 * largest), name


def mixed_net(x, n_classes, test):
    """Swish and average pooling where the fast functions can be used, and where they cannot."""
    h = F.swish(PF.convolution(x, 4, (3, 3), pad=(1, 1), name="a"))
    h = F.average_pooling(h, (2, 2), ignore_border=False, pad=(1, 0), including_pad=False)
    h = F.average_pooling(F.swish(PF.convolution(h, 4, (3, 3), pad=(1, 1), name="b")), (5, 3))
    return PF.affine(F.swish(PF.affine(h, 6, name="hidden")), n_classes)


def test_scoring_a_mixed_net_equals_nnablas(monkeypatch):
    monkeypatch.setitem(MODELS, "mixed", mixed_net)
    stock, fast = (scores("mixed", (1, 9, 12), conv) for conv in ("nnabla", "fast"))
    for name, truth in stock.items():
        assert relative(fast[name], truth) < TOLERANCE, name
    network = Network(mixed_net, (1, 9, 12), 10)
    kinds = type_names(network.logits(nn.Variable((2, 1, 9, 12)), test=False))
    assert {"MapSwish", "Swish", "MapAveragePooling", "AveragePooling"} <= kinds


def trained(conv):
    data = digit_images(0, 40)
    network = Network(MODELS["resnet"], data.shape, 10, seed=4, conv=conv)
    sgd = SGD(network, Optimiser(momentum=0.9))
    losses = [sgd.step(data, step) for step in plan_steps(5, 40, 1, 16, 0.05)]
    return losses, sgd.state()


def test_training_equals_nnablas_and_repeats_byte_for_byte():
    (losses, stock), (_, fast), (_, again) = (trained(conv) for conv in ("nnabla", "fast", "fast"))
    assert len(losses) == 3
    assert all(relative(fast[name], stock[name]) < TOLERANCE for name in stock if stock[name].any())
    assert any((fast[name] != stock[name]).any() for name in stock)  # it was not the stock function
    assert all(fast[name].tobytes() == again[name].tobytes() for name in stock)


def test_results_do_not_depend_on_what_ran_before():
    rng = np.random.default_rng(6)
    geometry = Geometry((5, 8, 8, 3), (4, 3, 3, 3), (1, 1), (2, 2))
    larger = Geometry((7, 11, 11, 5), (6, 5, 5, 5), (2, 2), (1, 1))
    tiled = Geometry((3, 8, 7, 9), (8, 9, 3, 3), (1, 1), (1, 1))
    larger_tiled = Geometry((4, 13, 9, 12), (10, 12, 3, 3), (0, 0), (1, 1))
    geometries = (geometry, larger, tiled, larger_tiled)
    arrays = {
        g: [rng.standard_normal(s).astype(np.float32) for s in (g.x_shape, g.w_shape, g.y_shape)]
        for g in geometries
    }

    def results(g):
        x, w, dy = arrays[g]
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
        convolve(g, x, w, y, w[:, 0, 0, 0])
        input_gradient(g, dy, w, dx)
        weight_gradient(g, dy, x, dw)
        return [array.tobytes() for array in (y, dx, dw)]

    first = [results(g) for g in (geometry, tiled)]
    results(larger)
    results(larger_tiled)
    assert [results(g) for g in (geometry, tiled)] == first


def test_freeing_memory_on_the_way_changes_nothing():
    rng = np.random.default_rng(7)
    x, q = variable(rng, 2, 2, 6, 6), variable(rng, 3, 2, 3, 3)
    results = []
    for clear in (False, True):
        with fast_functions(), nn.parameter_scope("", scope={}):
            nn.seed(8)
            h = F.tanh(PF.convolution(x * 2.0, 3, (3, 3), pad=(1, 1), name="a"))
            y = F.sum(F.tanh(PF.convolution(h, 3, (3, 3), name="b")))
            parameters = nn.get_parameters()
            gradient = nn.grad([y], [parameters["a/conv/W"]])[0]
        value = F.sum(gradient * q)
        x.grad.zero()
        value.forward(clear_no_need_grad=clear)
        value.backward(clear_buffer=clear)
        results.append([v.g.tobytes() for v in (x, *parameters.values())])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options, shape, kernel, expected",
    [
        ({}, (2, 4, 6, 6), (4, 4, 3, 3), "FastConvolution"),
        ({"dilation": (1, 1), "stride": (2, 1)}, (2, 4, 6, 6), (4, 4, 3, 3), "FastConvolution"),
        ({"dilation": (2, 2)}, (2, 4, 6, 6), (4, 4, 3, 3), "Convolution"),
        ({"group": 2}, (2, 4, 6, 6), (4, 2, 3, 3), "Convolution"),
        ({"channel_last": True}, (2, 6, 6, 4), (4, 3, 3, 4), "Convolution"),
        ({"base_axis": 2}, (2, 2, 4, 6, 6), (4, 4, 3, 3), "Convolution"),
        ({}, (2, 4, 6), (4, 4, 3), "Convolution"),
    ],
)
def test_what_it_cannot_do_stays_nnablas(options, shape, kernel, expected):
    rng = np.random.default_rng(9)
    x, w = variable(rng, *shape), variable(rng, *kernel)
    stock = F.convolution(x, w, **options)
    with fast_functions():
        y = F.convolution(x, w, **options)
    fast = y.parent.info.type_name == "Transpose"
    assert (y.parent.inputs[0] if fast else y).parent.info.type_name == expected
    assert y.shape == stock.shape
    if not options.get("channel_last"):  # which nnabla cannot compute on a CPU
        nn.forward_all([y, stock])
        assert relative(y.d, stock.d) < TOLERANCE


def test_another_context_stays_nnablas_and_the_stock_function_comes_back():
    stock = F.convolution
    x, w = nn.Variable((2, 1, 6, 6)), nn.Variable((3, 1, 3, 3))
    with fast_functions(), nn.context_scope(nn.Context(["cpu:half", "cpu:float"])):
        assert F.convolution(x, w).parent.info.type_name == "Convolution"
    with pytest.raises(RuntimeError, match="hannel"), fast_functions():
        F.convolution(x, nn.Variable((3, 2, 3, 3)))
    assert F.convolution is stock
