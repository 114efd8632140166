"""The Python interface to what the commands compute: the same tasks on the same objects."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import nnabla.context
import numpy as np
import numpy.typing as npt
import pandas as pd

from sgd_influence.arrays import Images, array_of, in_short, path_of, temporary_folder, value_of
from sgd_influence.eval import SCORE_COLUMNS, evaluate_without
from sgd_influence.guest import guest, in_python
from sgd_influence.label_issues import check_of_run
from sgd_influence.verify import (
    agreement_of,
    check_groups,
    judgement,
    smoothness_of_trial,
)
from utils.columns import IMAGE, INDEX, LABEL, ROW, SET
from utils.data.label_table import CONFIDENCE, IS_ISSUE, PREDICTED, SCORE
from utils.data.source import Source
from utils.errors import UserError
from utils.kernels import cores
from utils.methods import METHODS, Method
from utils.options import GAUSS_NEWTON, Options
from utils.output.folder import OutputFolder
from utils.output.results import Results
from utils.output.settings import claimed
from utils.output.storage import read_csv
from utils.output.usage import physical_cores
from utils.presets import preset_of
from utils.run.pipeline import Prepared, prepared, record_warnings
from utils.run.tasks import tasks_of
from utils.run.workers import InProcess, run_tasks
from utils.training.device import choose_backend, release_memory, set_context
from utils.training.from_scratch import remark_on_method
from utils.training.model_check import check_once
from utils.training.models import MODELS, Model
from utils.training.smoothness import SMOOTH, smoothness_words
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")


class _NotGiven:
    def __repr__(self) -> str:
        return "as the command"


NOT_GIVEN: Any = _NotGiven()
"""Stands for an option that is not given: it has the preset's value or the default."""

TRAIN, SCORES, REMOVALS, GROUPS = "train", "infl", "eval", "verify"
"""The stages of tasks."""


@dataclass(frozen=True)
class _Opened:
    """What a `Cleanser` works on after `fit`.

    Attributes:
        work: images, model and options, made ready.
        trial: the one trial.
        results: its tables.
    """

    work: Prepared
    trial: Trial
    results: Results

    @contextmanager
    def claimed(self) -> Iterator[_Opened]:
        """The same on its device, with the output folder claimed for the block."""
        set_context(self.work.backend, self.work.options.device_ids[0])
        with claimed(self.work.paths, self.work.settings, overwrite=False) as folder:
            folder.account.check_versions()
            folder.check_outputs()
            yield replace(self, trial=replace(self.trial, folder=folder))
            record_warnings(folder, self.work.remark, self.work.options.methods)


class Cleanser:
    """Trains a net on images, scores them, removes some and verifies: one trial of the commands.

    Options have the names, the meaning and the defaults of the commands (docs/options.md), and
    the same options on the same images give the same results, byte for byte. Results go to a
    temporary folder, which is removed with the object, or to `output_dir`, in the files of a
    command; results that are there from the same images and options are reused.

    Args:
        images: to train and to evaluate on.
        preset: sets several options, except those that are given: "smooth", for scores that
            predict training from scratch (docs/options.md).
        model: "six_convolutions" (default), "smooth_convolutions", "resnet", "smooth_resnet",
            "mlp", a .nnp file, or a function (x, n_classes, test) -> logits in ordinary nnabla,
            x (|B|, C, H, W).
        n_epochs: training length in epochs, by default 20.
        batch_size: images per training step, by default 64.
        lr: learning rate of SGD, by default 0.05.
        lr_schedule: "constant" (default), "step" or "cosine".
        momentum: of SGD, at least 0 and below 1, by default 0.
        weight_decay: L2 coefficient, by default 0.
        retrain_all: removals retrain from the first step instead of from the last epoch.
        cover_epochs: number of last epochs that the scores cover; None or "all" for all.
        if_solver: of Influence_functions, "gauss_newton" or "sgd".
        damping: of Influence_functions; None: chosen by the solver.
        seed: of everything random: initial parameters, batches, crops, split.
        context: "cpu", "cudnn" (a GPU), or "auto".
        device_id: number of the GPU.
        output_dir: folder for all results; None for a temporary one.
        verbose: print what the commands print; else only warnings.

    Attributes:
        learning_curve_: after `fit`, a row per epoch: epoch, train_loss, val_loss (nats),
            val_accuracy (fraction).
        training_mask_: after `fit`, (N,) bool, the images of y that are trained on and scored;
            the others are held out for validation or testing.
        groups_: after `verify`, a row per group: its kind, size, predicted and true change of
            the validation loss (nats).
        smoothness_: after `verify`, how predictable the effects of small removals are: 1 in a
            smooth training, 0 or below if chance decides.
        label_verdict_: after `label_issues`, the content of labels/verdict.json: how many labels
            look wrong (n_issues), the 95 % interval (low, high), and why the number is only a
            lower bound, if it is one (reason).

    Raises:
        UserError: of one line, for an option out of its range.

    >>> import numpy as np
    >>> from sgd_influence import Cleanser, Images
    >>> X = np.random.default_rng(0).random((80, 8, 8)) / 2
    >>> y = np.arange(80) % 2
    >>> X[y == 1, :4] += 0.5                                # bright above
    >>> cleanser = Cleanser(Images(X, y), model="mlp", n_epochs=3, batch_size=16, context="cpu")
    >>> _ = cleanser.fit()
    >>> list(cleanser.learning_curve_["epoch"])
    [0, 1, 2]
    >>> scores = cleanser.score("Hara")                     # in the order of y
    >>> scores.shape, int(np.isnan(scores).sum())           # 12 for validation, 12 for testing
    ((80,), 24)
    >>> cleanser.remove(5).index.tolist()                   # retrained without the worst 5
    [0, 5]
    >>> mask = cleanser.training_mask_ & (y == 1)           # or without images of your choice
    >>> cleanser.remove(mask).columns.tolist()
    ['val_loss', 'test_loss', 'val_accuracy', 'test_accuracy']
    >>> cleanser.verify(n_groups=6).index.tolist()
    ['random groups', 'groups of the ranking']
    >>> issues = cleanser.label_issues()                    # worst first, by place in y
    >>> len(issues), issues.columns[:3].tolist()
    (80, ['set', 'given_label', 'is_label_issue'])
    >>> cleanser.close()
    """

    learning_curve_: pd.DataFrame
    training_mask_: npt.NDArray[np.bool_]
    groups_: pd.DataFrame
    smoothness_: float
    label_verdict_: dict[str, Any]

    def __init__(
        self,
        images: Images,
        *,
        preset: str | None = None,
        model: str | PathLike[str] | Model = NOT_GIVEN,
        n_epochs: int = NOT_GIVEN,
        batch_size: int = NOT_GIVEN,
        lr: float = NOT_GIVEN,
        lr_schedule: str = NOT_GIVEN,
        momentum: float = NOT_GIVEN,
        weight_decay: float = NOT_GIVEN,
        retrain_all: bool = False,
        cover_epochs: int | Literal["all"] | None = 1,
        if_solver: str = GAUSS_NEWTON,
        damping: float | None = None,
        seed: int = 0,
        context: str = "auto",
        device_id: int | str = 0,
        output_dir: str | PathLike[str] | None = None,
        verbose: bool = False,
    ) -> None:
        training = {
            "model": model, "n_epochs": n_epochs, "batch_size": batch_size, "lr": lr,
            "lr_schedule": lr_schedule, "momentum": momentum, "weight_decay": weight_decay,
        }  # fmt: skip
        chosen = {
            "cover_epochs": cover_epochs, "if_solver": if_solver, "damping": damping,
            "seed": seed, "context": context,
        }  # fmt: skip
        if not isinstance(images, Images):
            raise UserError(f"images is {type(images).__name__}; give Images(X, y)")
        self.images, self.verbose = images, bool(verbose)
        with guest(self.verbose):
            chosen |= _with_preset(preset, training)
        named: Any = chosen.pop("model", Options.model)
        self._model: str | Model = os.fspath(named) if isinstance(named, PathLike) else named
        self._output_dir = None if output_dir is None else path_of(output_dir, "output_dir")
        with guest(self.verbose):
            self.options = Options(
                program="sgd_influence",
                output_dir=self._output_dir or Path(),
                methods=tuple(METHODS),
                n_trials=1,
                remove_n_list=(0,),
                jobs=1,
                retrain_all=bool(retrain_all),
                preset=preset,
                model=_name_of(self._model),
                device_id=str(device_id),
                data_dir=Path(images._folder.name),
                **images._chosen,
                **{name: value_of(name, value) for name, value in chosen.items()},
            )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._opened: _Opened | None = None
        self._is_fitted = False
        self._used: set[str] = set()

    def fit(self) -> Cleanser:
        """Train the net and record its steps; nothing is trained twice.

        Raises:
            UserError: the options do not fit the images, the model cannot be scored, or
                `output_dir` holds results of other images or options.
        """
        _check_no_scope()
        with guest(self.verbose):
            self._opened = self._opened or self._open()
            with self._opened.claimed() as opened:
                self._run(opened, [TRAIN])
                self._note(opened)
        return self

    def score(self, method: str = "Hara") -> npt.NDArray[np.float64]:
        """The scores of all images in the order of y, by a method of `METHODS`.

        Returns:
            (N,) float64. The lowest is the image to remove first; for the methods that predict,
            it is the change of the mean validation loss (nats) without the image. nan for images
            that are held out for validation or testing.

        Raises:
            UserError: there is no such method, or `fit` was not called.
        """
        with self._computing() as opened:
            self._run(opened, [SCORES], [self._chosen(method)])
            table = opened.results.influence(method, opened.trial.seed)
            scores = np.full(len(self.images), np.nan)
            order = self._places_of_training(opened)
            scores[order[table[INDEX].to_numpy()]] = table["influence"].to_numpy()
        return scores

    def remove(
        self, what: int | npt.NDArray[np.bool_] | Sequence[bool], method: str = "Hara"
    ) -> pd.DataFrame:
        """Retrain without some images, and evaluate.

        Args:
            what: n, for the n that `method` ranks worst; or a mask (N,) of images of y.
            method: that ranks; ignored with a mask.

        Returns:
            Two rows, the number of images removed as index: 0 and n. Columns: val_loss, test_loss
            (nats), val_accuracy, test_accuracy (fractions), after the last epoch.

        Raises:
            UserError: n or the mask does not fit, or `fit` was not called.
        """
        with self._computing() as opened:
            if isinstance(what, int | np.integer) and not isinstance(what, bool):
                without, unchanged, n = self._without_worst(opened, int(what), method)
            else:
                without, unchanged, n = self._without_mask(opened, _mask_of(what))
            rows = [table.iloc[-1][SCORE_COLUMNS] for table in (unchanged, without)]
        return pd.DataFrame(rows).set_axis(pd.Index([0, n], name="n_removed"))

    def verify(self, method: str = "Hara", n_groups: int = 40) -> pd.DataFrame:
        """Remove groups of a tenth of the images, retrain, and compare with the scores.

        Half of the groups, at most ten, are cut from the method's ranking. The others are random.
        `groups_` has each.

        Returns:
            A row for either kind of groups: Spearman's correlation of predicted and true changes
            (agreement) and the ends of its 95 % interval (low, high). Below 0.3 a ranking should
            not be trusted; a warning says so.

        Raises:
            UserError: fewer than 6 groups or more than training images, no such method, or `fit`
                was not called.
        """
        with self._computing() as opened:
            n_groups = int(value_of("verify", n_groups, "n_groups"))
            if not n_groups:  # which turns the option off
                raise UserError("n_groups 0: needs 6 groups or more")
            check_groups(n_groups, opened.trial.n_train)
            chosen = [self._chosen(method)]
            self._run(opened, [SCORES, REMOVALS, GROUPS], chosen, n_groups=n_groups)
            rows = opened.results.table(opened.trial.folder.verified(opened.trial.seed))
            self.groups_ = rows[rows["method"] == method].reset_index(drop=True)
            self.smoothness_, learnt = smoothness_of_trial(opened.trial, method)
            found = agreement_of(self.groups_)
            text = ""
            if METHODS[method].predicts:
                text = judgement(method, found, n_groups, opened.trial.n_train, n_rankings=1)
            if text:
                log.warning("%s", text)
            words = smoothness_words(self.smoothness_, learnt)
            if words and (self.smoothness_ < SMOOTH or not learnt):
                log.warning("%s", words)
        both = [(found.random, found.low, found.high)]
        both += [(found.ranking, found.ranking_low, found.ranking_high)]
        kinds = ["random groups", "groups of the ranking"]
        return pd.DataFrame(both, index=kinds, columns=["agreement", "low", "high"])

    def label_issues(self) -> pd.DataFrame:
        """Check the labels of all images from what the training recorded, without new training.

        Returns:
            A row per image, the label that is most likely wrong first; the index is the image's
            place in y (or, as `set` says, in y_val or y_test). Columns: set, given_label,
            is_label_issue, label_score (probability that the label is right), predicted_label,
            predicted_score, aum (logits), and x:image for files.

        Raises:
            UserError: `fit` was not called.
        """
        with self._computing() as opened:
            verdict = check_of_run(self.options, opened.work.source, opened.trial, opened.results)
            assert verdict is not None, "a training of this version records what the check needs"
            for key in ("reason", "harmful_options"):
                verdict[key] = in_python(verdict[key]) if verdict[key] else None
            if verdict["reason"]:
                log.warning("labels: %s", verdict["reason"])
            self.label_verdict_ = verdict
            path = opened.trial.folder.latest(opened.trial.folder.label_issues)
            table = opened.results.table(path)
        return self._issues(table, opened.work.source)

    def close(self) -> None:
        """Remove the temporary folder; `fit` begins again."""
        self._opened, self._is_fitted = None, False
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Cleanser:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------ how

    def _note(self, opened: _Opened) -> None:
        """Set the attributes that `fit` gives."""
        curve = opened.trial.folder.learning_curve(opened.trial.seed)
        self.learning_curve_ = read_csv(curve)
        self.training_mask_ = np.zeros(len(self.images), bool)
        self.training_mask_[self._places_of_training(opened)] = True
        self._is_fitted = True

    @contextmanager
    def _computing(self) -> Iterator[_Opened]:
        """What `fit` has opened, its folder claimed, in a process that is left as it was."""
        if self._opened is None or not self._is_fitted:
            raise UserError("nothing is trained yet; call fit() first")
        _check_no_scope()
        with guest(self.verbose), self._opened.claimed() as opened:
            yield opened

    def _open(self) -> _Opened:
        root = self._output_dir and self._output_dir.absolute()
        if root is None:
            self._temporary = temporary_folder()
            root = Path(self._temporary.name) / "output"
        context = _backend(self.options.context, self.options.device_ids)
        device_id = self.options.device_id if context == "cudnn" else Options.device_id
        options = replace(self.options, output_dir=root, context=context, device_id=device_id)
        _register(self._model)
        work = prepared(options, self.images._source)
        folder = OutputFolder(root)
        trial = work.trial(options.seed, folder)
        if work.remark:
            log.warning("%s", work.remark)
        return _Opened(work, trial, work.results(folder))

    def _run(
        self,
        opened: _Opened,
        stages: Sequence[str],
        methods: Sequence[Method] = (),
        n: int = 0,
        n_groups: int = 0,
    ) -> None:
        """Run the tasks of some stages, as a command does in one process."""
        options = replace(self.options, verify=n_groups)
        tasks = tasks_of(options, opened.results, methods, [0, n])
        chosen = [task for task in tasks if task.stage in stages]
        with _all_cores():
            workers = InProcess(opened.work.use_device)
            run_tasks(chosen, lambda seed: opened.trial, workers, {})

    def _chosen(self, name: str) -> Method:
        """The method of a name; warns once if it does not predict the retraining."""
        method = _method(name)
        if name not in self._used and (remark := remark_on_method(self.options, name)):
            log.warning("%s", remark)
        self._used.add(name)
        return method

    def _places_of_training(self, opened: _Opened) -> npt.NDArray[np.int64]:
        """The place in y of each training image of the trial (n_train,)."""
        places = self.images.places(opened.trial.data.training.rows)
        return places[ROW].to_numpy(np.int64)

    def _without_worst(
        self, opened: _Opened, n: int, method: str
    ) -> tuple[pd.DataFrame, pd.DataFrame, int]:
        trial = opened.trial
        if not 0 < n < trial.n_train:
            raise UserError(f"remove({n}): give a number from 1 to {trial.n_train - 1}")
        self._run(opened, [SCORES, REMOVALS], [self._chosen(method)], n)
        paths = (trial.folder.score(method, k, trial.seed) for k in (n, 0))
        without, unchanged = map(opened.results.table, paths)
        return without, unchanged, n

    def _without_mask(
        self, opened: _Opened, mask: npt.NDArray[Any]
    ) -> tuple[pd.DataFrame, pd.DataFrame, int]:
        removed = self._mask_of_training(opened, mask)
        none = np.zeros_like(removed)
        try:
            with _all_cores(), cores.hold_core():
                unchanged, without = (
                    evaluate_without(opened.trial, images, "removal")[0]
                    for images in (none, removed)
                )
        finally:
            release_memory()
        return without, unchanged, int(removed.sum())

    def _mask_of_training(self, opened: _Opened, mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """A mask of y as one of the training images (n_train,)."""
        if mask.dtype != bool or mask.shape != self.images.y.shape:
            what = f"{mask.dtype} of the shape {mask.shape}"
            wanted = f"a number, or a mask of bool of the shape {self.images.y.shape}"
            raise UserError(f"remove: is {what}; give {wanted}")
        removed = np.asarray(mask[self._places_of_training(opened)])
        n, n_train = int(removed.sum()), opened.trial.n_train
        if n < mask.sum():
            what = f"the mask names {mask.sum() - n} images that are held out and not trained on"
            raise UserError(f"remove: {what}; give mask & cleanser.training_mask_")
        if not 0 < n < n_train:
            raise UserError(
                f"remove: the mask names {n} of {n_train} images; give 1 to {n_train - 1}"
            )
        return removed

    def _issues(self, table: pd.DataFrame, source: Source) -> pd.DataFrame:
        start = table[SET].map(lambda name: source.rows_of_set(name).start)
        places = self.images.places((start + table[ROW]).to_numpy(np.int64))
        classes = self.images.classes
        columns = {
            SET: places[SET].to_numpy(),
            "given_label": classes[table[LABEL].to_numpy(np.int64)],
            IS_ISSUE: table[IS_ISSUE].to_numpy(bool),
            SCORE: table[SCORE].to_numpy(),
            PREDICTED: classes[table[PREDICTED].to_numpy(np.int64)],
            CONFIDENCE: table[CONFIDENCE].to_numpy(),
            "aum": table["aum"].to_numpy(),
        }
        if self.images._from_files:
            columns[IMAGE] = table[IMAGE].to_numpy()
        return pd.DataFrame(columns, index=pd.Index(places[ROW].to_numpy(), name="index"))


@contextmanager
def _all_cores() -> Iterator[None]:
    cores.share(physical_cores())
    try:
        yield
    finally:
        cores.share(1)


def _check_no_scope() -> None:
    if nnabla.context.context_level:
        raise UserError("called inside nn.context_scope; call it outside, and give context")


@cache
def _backend(context: str, device_ids: tuple[str, ...]) -> str:
    """Where nnabla computes; cached, so that a process warns only once that no GPU is used."""
    return choose_backend(context, device_ids)


def _name_of(model: str | Model) -> str:
    """The name of a model as `--model` has it."""
    if isinstance(model, str):
        return model
    if not callable(model):
        raise UserError(f"model is {type(model).__name__}; give a name or a function")
    own = getattr(model, "__qualname__", type(model).__name__)
    return f"{getattr(model, '__module__', '')}:{own}"


def _with_preset(preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that are given, and what the preset sets of the others."""
    given = {name: value for name, value in options.items() if value is not NOT_GIVEN}
    if preset is None:
        return given
    return {**preset_of(preset if isinstance(preset, str) else in_short(preset)).options, **given}


def _register(model: str | Model) -> None:
    """Make a function a row of `MODELS`, in place of another one of its name."""
    name = _name_of(model)
    if not isinstance(model, str) and MODELS.get(name) is not model:
        MODELS[name] = model
        check_once.cache_clear()


def _method(name: str) -> Method:
    """The method of a name; raises a UserError."""
    if not isinstance(name, str) or name not in METHODS:
        raise UserError(f"method {in_short(name)}: not known; known are {', '.join(METHODS)}")
    return METHODS[name]


def _mask_of(what: Any) -> npt.NDArray[Any]:
    """What is to be removed, as an array; a column of `label_issues` is in another order than y."""
    if isinstance(what, pd.Series) and not np.array_equal(what.index, np.arange(len(what))):
        raise UserError(
            "remove: is a Series whose index is not 0, 1, 2, ..., which may be in another order "
            "than y; give an array in the order of y (of a column of label_issues: sort_index())"
        )
    return array_of(what, "remove")
