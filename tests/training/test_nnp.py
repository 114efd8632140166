"""Nets of .nnp files: found, fitted to the data, refused in one line; the trained net as one."""

from __future__ import annotations

import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.utils.load import load

from tests.helpers.nnp import (
    CLASSES,
    SIDE,
    Layers,
    affine,
    console_network,
    console_project,
    convolution,
    save_model,
    write_nnp,
)
from tests.helpers.users_models import good
from utils.errors import UserError
from utils.kernels.fast_functions import FAST
from utils.training.model_check import checked_model
from utils.training.models import MODELS, Model, find_model
from utils.training.network import Network, State
from utils.training.nnp_net import REPLACED, NnpNet
from utils.training.nnp_save import nnp_of

SHAPE = (1, SIDE, SIDE)
IMAGES = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)


def logits_of(network: Network, test: bool) -> np.ndarray:
    y = network.logits(nn.Variable.from_numpy_array(IMAGES), test)
    y.forward()
    return y.d


def equal(a: State, b: State) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options", [{"loss": True}, {"variable_batch_size": False}], ids=["loss", "fixed batch"]
)
def test_saved_models_start_and_compute_as_the_built_in_ones(
    name: str, options: dict[str, bool], tmp_path: Path
) -> None:
    save_model(tmp_path / "net.nnp", MODELS[name], **options)
    model = checked_model(str(tmp_path / "net.nnp"), SHAPE, CLASSES)
    saved, built_in = (Network(m, SHAPE, CLASSES, seed=3) for m in (model, MODELS[name]))
    assert equal(saved.state(), built_in.state())
    assert not equal(Network(model, SHAPE, CLASSES, seed=4).state(), saved.state())
    for test in (False, True):
        assert np.array_equal(logits_of(saved, test), logits_of(built_in, test))
    assert equal(saved.state(), built_in.state())  # the running statistics of the training too


def test_functions_that_can_be_fast_are_called_by_name() -> None:
    assert {*REPLACED.values(), "batch_normalization"} == FAST.keys()


@pytest.mark.parametrize("name", ["smooth_convolutions", "smooth_resnet"])
def test_trained_smooth_nets_make_the_round_trip_through_the_fast_functions(
    name: str, tmp_path: Path
) -> None:
    network = Network(MODELS[name], SHAPE, CLASSES)
    rng = np.random.default_rng(1)
    state = {k: v + 0.1 * rng.random(v.shape, np.float32) for k, v in network.state().items()}
    network.load(state)
    (tmp_path / "net.nnp").write_bytes(nnp_of(network, state))
    again = Network(checked_model(str(tmp_path / "net.nnp"), SHAPE, CLASSES), SHAPE, CLASSES)
    again.load(state)
    assert np.array_equal(logits_of(again, True), logits_of(network, True))
    kinds: set[str] = set()
    again.logits(nn.Variable((2, *SHAPE)), False).visit(lambda f: kinds.add(f.info.type_name))
    assert "MapSwish" in kinds
    assert kinds.isdisjoint({"Swish", "AveragePooling", "Convolution", "BatchNormalization"})


@pytest.mark.parametrize(("saved", "variable"), [(1, False), (16, False), (16, True)])
def test_slices_of_maps_hold_for_batches_of_any_size(
    saved: int, variable: bool, tmp_path: Path
) -> None:
    """A file has the batch size of a slice, too."""

    def gated(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        h = PF.convolution(x, 8, (3, 3), name="maps")
        return PF.affine(h[:, :4] * F.sigmoid(h[:, 4:]), n_classes, name="last")

    file = tmp_path / "net.nnp"
    save_model(file, gated, batch_size=saved, variable_batch_size=variable)
    model = checked_model(str(file), SHAPE, CLASSES)
    again, network = (Network(m, SHAPE, CLASSES, seed=3) for m in (model, gated))
    assert np.array_equal(logits_of(again, True), logits_of(network, True))


def test_a_slice_that_may_be_of_one_image_is_no_slice_of_all(tmp_path: Path) -> None:
    def adds_the_first(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        return PF.affine(x + x[:1], n_classes)

    file = tmp_path / "net.nnp"
    save_model(file, adds_the_first, variable_batch_size=True)
    with pytest.raises(UserError, match="mixes the images of a batch"):
        checked_model(str(file), SHAPE, CLASSES)


def console(tmp_path: Path, text: str) -> str:
    return str(write_nnp(tmp_path / "net.nnp", text))


def test_the_network_that_a_console_project_runs_is_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without loss, softmax, augmentation, scaling and dropout, and with its initializers."""
    model = checked_model(console(tmp_path, console_project()), SHAPE, CLASSES)
    assert isinstance(model, NnpNet)
    assert (model.image, model.logits) == ("MulScalar", "Affine")
    assert [record.getMessage() for record in caplog.records] == [
        f"--model {model.file}: network MainRuntime is trained, without MulScalar, Dropout, "
        "ImageAugmentation; images are normalised and augmented by this program"
    ]
    network = Network(model, SHAPE, CLASSES, conv="nnabla")
    state = network.state()
    glorot = np.sqrt(2 / (3 * SIDE * SIDE + CLASSES))
    assert state["Affine/affine/W"].std() == pytest.approx(glorot, rel=0.1)
    assert list(network.statistics) == [
        "BatchNormalization/bn/mean",
        "BatchNormalization/bn/var",
    ]
    training, test = logits_of(network, False), logits_of(network, True)
    assert not np.array_equal(training, test)  # BatchNorm follows `test`, in a network to run too
    assert not np.array_equal(network.state()["BatchNormalization/bn/mean"], np.zeros((1, 3, 1, 1)))


def test_a_monitor_is_no_output(tmp_path: Path) -> None:
    text = str(
        affine(Layers("Main")).add("TopNError", "top_n_error_param { axis: 1 }", (1,), data=("T",))
    )
    model = find_model(console(tmp_path, text))
    assert isinstance(model, NnpNet)
    assert model.logits == "Affine"


def test_initializers_count_as_part_of_the_graph(tmp_path: Path) -> None:
    def graph(text: str) -> str:
        return Network(find_model(console(tmp_path, text)), SHAPE, CLASSES).graph

    text = console_project()
    assert graph(text) == graph(text)
    assert graph(text) != graph(text.replace('"NormalAffineGlorot"', '"NormalAffineHe"'))


def test_repeated_layers_are_written_out(tmp_path: Path) -> None:
    """A loop of Neural Network Console has its own parameters each time."""
    net = convolution(Layers("Main"))
    loop = 'repeat_id: "Loop"'
    net.add("RepeatStart", 'repeat_param { repeat_id: "Loop" }')
    convolution(net).add("Tanh").add("RepeatEnd", 'repeat_param { repeat_id: "Loop" times: 2 }')
    text = str(affine(net))
    for name in ("RepeatStart", "Convolution_2", "Tanh"):
        text = text.replace(f'name: "{name}" type', f'name: "{name}" {loop} type')
    for name in ("conv/W", "conv/b"):
        text = text.replace(
            f'name: "Convolution_2/{name}" type',
            f'name: "Convolution_2{{Loop}}/{name}" {loop} type',
        )
        text = text.replace(f'"Convolution_2/{name}"', f'"Convolution_2{{Loop}}/{name}"')
    text = text.replace(
        'type: "RepeatStart" input: "Convolution"',
        'type: "RepeatStart" input: "Convolution" input: "Tanh"',
    )
    text = text.replace("network { ", 'network { repeat_info { id: "Loop" times: 2 } ')
    model = checked_model(console(tmp_path, text), SHAPE, CLASSES)
    state = Network(model, SHAPE, CLASSES).state()
    assert {"Convolution_2[0]/conv/W", "Convolution_2[1]/conv/W"} < set(state)
    assert state["Convolution_2[0]/conv/W"].std() > 0


def test_reshape_and_missing_bias_and_scale(tmp_path: Path) -> None:
    """The batch size that a Reshape holds is the one of each call."""

    def model(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        h = PF.batch_normalization(x, batch_stat=not test, no_bias=True)
        h = F.reshape(h, (x.shape[0], 4, 16))
        h = PF.batch_normalization(h, batch_stat=not test, no_scale=True, name="bn2")
        return PF.affine(PF.prelu(h), n_classes)

    for fixed in (False, True):
        path = tmp_path / f"{fixed}.nnp"
        save_model(path, model, variable_batch_size=not fixed)
        saved = Network(checked_model(str(path), SHAPE, CLASSES), SHAPE, CLASSES, conv="nnabla")
        own = Network(model, SHAPE, CLASSES, conv="nnabla")
        assert equal(saved.state(), own.state())
        assert logits_of(saved, True) == pytest.approx(logits_of(own, True), abs=1e-6)


REFUSED: dict[str, tuple[str, str]] = {
    "other loss": (console_project("SquaredError"), "network Main: is trained by SquaredError"),
    "other loss, one network": (
        str(affine(Layers("Main")).add("SquaredError", shape=(1,), data=("T",))),
        "network Main: is trained by SquaredError; only softmax cross-entropy can be scored",
    ),
    "loss with a penalty": (
        str(affine(Layers("Main")).add("SoftmaxCrossEntropy", shape=(1,), data=("T",)).add("Exp")),
        "network Main: its loss is not SoftmaxCrossEntropy alone (Exp follows)",
    ),
    "two classes in one number": (
        str(affine(Layers("Main"), 1).add("Sigmoid")),
        "network Main: its output Sigmoid is 1 per image",
    ),
    "a sigmoid for each class": (
        str(affine(Layers("Main")).add("Sigmoid")), "output Sigmoid is a Sigmoid; only a Softmax",
    ),
    "an image comes out": (
        str(convolution(Layers("Main"))), "its output Convolution is 3x8x8 per image",
    ),
    "two images go in": (
        str(affine(Layers("Main").add("Sub2", "sub2_param { }", data=("Other",)))),
        "here on 2 inputs (Input, Other)",
    ),
    "recurrence": (
        str(affine(Layers("Main").add("RecurrentInput"))),
        "network Main: RecurrentInput: recurrent nets cannot be scored",
    ),
    "dropout": (str(console_network("Main", "train")), "uses Dropout, which gives other values"),
    "no network": ("", "holds no network"),
    "no layers": ('network { name: "Main" }', "network Main: one output can be scored, here are 0"),
    "unknown function": (
        console_project().replace('type: "ReLU"', 'type: "NoSuch"'), '"NoSuch" is not supported',
    ),
    "unknown variable": (
        str(affine(Layers("Main"))).replace('input: "Input"', 'input: "x"'), "unknown variable x",
    ),
    "unknown initializer": (
        str(affine(Layers("Main"))).replace("NormalAffineGlorot", "Strange"),
        "its initializer Strange is not known",
    ),
    "no initializer": (
        str(affine(Layers("Main").add("Mul2", "mul2_param { }", None, (("scale", (1,), ""),)))),
        "no start for Mul2/scale of Mul2: the file has no initializer",
    ),
    "a loss of nothing": (
        'network { name: "Main" function { name: "a" type: "SoftmaxCrossEntropy" } }',
        "network Main: cannot be read (IndexError",
    ),
    "a convolution of no group": (
        str(affine(convolution(Layers("Main")))).replace("group: 1", ""),
        "network Main: Convolution has group 0; give 1 or more",
    ),
    "a pooling that stands still": (
        str(affine(convolution(Layers("Main")).add(
            "MaxPooling",
            "max_pooling_param { kernel { dim: 2 dim: 2 } stride { dim: 2 dim: 0 } }",
        ))),
        "network Main: MaxPooling has stride 0; give 1 or more",
    ),
    "no protobuf text": ("network {", "is damaged, cut short or no .nnp file"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    text, reason = REFUSED[case]
    path = console(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(reason)) as raised:
        checked_model(path, SHAPE, CLASSES)
    assert str(raised.value).startswith(f"--model {path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "n_classes", "reason"),
    [
        ((3, 32, 32), 10, "the data are 3x32x32; give --image_size 8 --color gray, or change"),
        ((1, 28, 28), 10, "takes images of 1x8x8, the data are 1x28x28; give --image_size 8, or"),
        ((1, 8, 8), 3, "has 10 classes, the data have 3; change the outputs of its last layer"),
    ],
)  # fmt: skip
def test_a_net_that_does_not_fit_the_data_is_refused(
    shape: tuple[int, ...], n_classes: int, reason: str, tmp_path: Path
) -> None:
    path = console(tmp_path, console_project())
    with pytest.raises(UserError, match=f"network MainRuntime .*{re.escape(reason)}"):
        checked_model(path, shape, n_classes)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit of the text is another one."""
    at = content.index(b"MulScalar")
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cut, "is damaged, cut short or no .nnp file"),
        (flipped, "net.nntxt is damaged"),
        (lambda _: b"", "the file is empty"),
        (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), "is damaged, cut short or no .nnp file"),
    ],
    ids=["cut", "flipped", "empty", "foreign"],
)
def test_a_file_that_is_no_nnp_ends_in_one_line(
    change: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    path = write_nnp(tmp_path / "net.nnp", console_project())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=re.escape(reason)) as raised:
        find_model(str(path))
    assert "\n" not in str(raised.value)


def test_another_archive_a_folder_and_nothing_are_no_nnp(tmp_path: Path) -> None:
    other = tmp_path / "other.nnp"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    (tmp_path / "folder.nnp").mkdir()
    for name, reason in (("other", "no *.nntxt"), ("folder", "a folder"), ("none", "No such file")):
        with pytest.raises(UserError, match=re.escape(reason)):
            find_model(str(tmp_path / f"{name}.nnp"))


def test_a_net_can_be_sent_to_a_worker_without_its_file(tmp_path: Path) -> None:
    path = console(tmp_path, console_project())
    sent = pickle.dumps(find_model(path))
    Path(path).unlink()
    assert pickle.loads(sent)(nn.Variable((2, *SHAPE)), CLASSES, True).shape == (2, CLASSES)


# ---------------------------------------------------------------- the trained net


def moved(network: Network) -> State:
    """A state that no initializer gives."""
    rng = np.random.default_rng(1)
    state = network.state()
    return {k: v + 0.1 * rng.random(v.shape, np.float32) for k, v in state.items()}


@pytest.mark.parametrize("model", [*MODELS.values(), good], ids=lambda model: model.__name__)
def test_saved_net_gives_the_same_outputs_in_nnabla(model: Model, tmp_path: Path) -> None:
    network = Network(model, SHAPE, CLASSES, conv="nnabla")
    state = moved(network)
    path = tmp_path / "final_model.nnp"
    path.write_bytes(nnp_of(network, state))
    network.load(state)
    nn.clear_parameters()
    try:
        variables = load([str(path)], batch_size=len(IMAGES)).networks["MainRuntime"].variables
        variables["x"].variable_instance.d = IMAGES
        y = variables["y"].variable_instance
        y.forward()
    finally:
        nn.clear_parameters()
    assert np.array_equal(y.d, logits_of(network, test=True))


def test_saved_net_is_a_model_and_depends_on_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(good, SHAPE, CLASSES)
    state = moved(network) | {"velocity/affine/W": np.zeros(3, np.float32)}
    content = nnp_of(network, state)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2e9))
    assert nnp_of(network, state) == content
    (tmp_path / "net.nnp").write_bytes(content)
    again = Network(find_model(str(tmp_path / "net.nnp")), SHAPE, CLASSES)
    assert equal(again.state(), network.state())
