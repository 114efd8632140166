"""Models as users write them: good ones and ones that cannot work."""

from functools import cache

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np


def good(x, n_classes, test):
    h = PF.convolution(x, 4, (3, 3), pad=(1, 1))
    h = PF.fused_batch_normalization(h, batch_stat=not test)
    return PF.affine(F.max_pooling(h, (2, 2)), n_classes)


def dense(x, n_classes, test):
    h = PF.affine(x, 8, name="hidden")
    return PF.affine(PF.batch_normalization(h, batch_stat=not test), n_classes)


def one_name(x, n_classes, test):
    return PF.affine(F.tanh(PF.affine(x, 8)), n_classes)


def dense_relu(x, n_classes, test):
    h = PF.affine(x, 8, name="hidden")
    return PF.affine(F.relu(PF.batch_normalization(h, batch_stat=not test)), n_classes)


def _tied(x, n_classes, layer):
    h = F.tanh(PF.convolution(x, 4, (3, 3), pad=(1, 1), name="first"))
    for _ in range(2):
        h = F.tanh(layer(h))
    return PF.affine(F.average_pooling(h, (4, 4)), n_classes)


def _kernels():
    initial = np.random.default_rng(0).standard_normal((4, 4, 3, 3))
    kernels = nn.parameter.get_parameter_or_create("tied", initial.shape, initial)
    return 0.3 * F.weight_standardization(kernels, channel_axis=0)


def tied(x, n_classes, test):
    return _tied(x, n_classes, lambda h: F.convolution(h, _kernels(), pad=(1, 1)))


def tied_looked_up_once(x, n_classes, test):
    kernels = cache(_kernels)
    return _tied(x, n_classes, lambda h: F.convolution(h, kernels(), pad=(1, 1)))


def raises(x, n_classes, test):
    raise RuntimeError("no such layer")


def wrong_shape(x, n_classes, test):
    return PF.affine(x, n_classes + 1)


def returns_none(x, n_classes, test):
    PF.affine(x, n_classes)


def no_parameters(x, n_classes, test):
    return F.reshape(x, (x.shape[0], -1))[:, :n_classes]


def aside(x, n_classes, test):
    logits = PF.affine(x, n_classes)
    return logits if test else logits + PF.affine(x, n_classes, name="aside")


def unused(x, n_classes, test):
    PF.affine(x, 8, name="unused")
    return PF.affine(x, n_classes)


def shifted(x, n_classes, test):
    return PF.affine(x if test else F.image_augmentation(x, contrast=1.2), n_classes)


def with_dropout(x, n_classes, test):
    h = PF.affine(x, 8)
    return PF.affine(h if test else F.dropout(h, 0.5), n_classes, name="last")


def with_top_k(x, n_classes, test):
    return PF.affine(F.top_k_data(PF.affine(x, 8), 3), n_classes, name="last")


def mixes_images(x, n_classes, test):
    return PF.affine(x - F.mean(x, axis=0, keepdims=True), n_classes)


def mixes_the_first_image(x, n_classes, test):
    h = PF.affine(x, 8, name="hidden")
    return PF.affine(h + 0.5 * h[:1], n_classes)


def stops_a_gradient(x, n_classes, test):
    h = PF.affine(x, 8, name="hidden")
    return PF.affine(h * F.identity(h).apply(need_grad=False), n_classes)


def gated_by_its_maximum(x, n_classes, test):
    h = PF.convolution(x, 4, (3, 3))
    return PF.affine(h * F.max(h, axis=(2, 3), keepdims=True, with_index=True)[0], n_classes)


def probabilities(x, n_classes, test):
    return F.softmax(PF.affine(x, n_classes))


def ignores_test(x, n_classes, test):
    return PF.affine(PF.batch_normalization(PF.convolution(x, 4, (3, 3))), n_classes)


def inverted(x, n_classes, test):
    return PF.affine(PF.batch_normalization(x, batch_stat=test), n_classes)


def without_bias_and_scale(x, n_classes, test):
    h = PF.convolution(x, 4, (3, 3), with_bias=False)
    h = PF.batch_normalization(h, batch_stat=not test, no_bias=True)
    h = F.swish(PF.convolution(h, 4, (3, 3), name="second"))
    h = PF.batch_normalization(h, batch_stat=not test, no_scale=True, name="second")
    return PF.affine(F.average_pooling(h, (2, 2)), n_classes)


def mean_subtraction(x, n_classes, test):
    return PF.affine(PF.mean_subtraction(x, update_running_mean=not test), n_classes)


constant = nn.Variable((1,))
