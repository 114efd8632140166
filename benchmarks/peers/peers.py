"""The other libraries' side, in PyTorch: each scores the same recorded training.

    python benchmarks/peers/peers.py checkpoints FOLDER   write the net after each epoch
    python benchmarks/peers/peers.py parity FOLDER        compare the trainings
    python benchmarks/peers/peers.py score  FOLDER PEER   needs checkpoints

Every score is turned so that it estimates the change of the mean validation loss when the image is
left out, up to a factor: negative is harmful.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository, when run as a script

from benchmarks.peers.net import (
    BATCH,
    checkpoint_path,
    net_of,
    parity,
    save_checkpoints,
    tensors,
    train,
    validation_tensors,
)
from benchmarks.peers.problem import (
    Problem,
    Result,
    bytes_of,
    checkpoints_folder,
    parity_path,
    problem_path,
    record,
    scratch_folder,
)

DAMPING = 0.1
"""alpha of H + alpha I where a library has no default: the product's on MNIST."""
MOST_ROWS = 1024
"""Per-example gradients that are held at once where a library wants all of them."""


@dataclass(frozen=True)
class Work:
    """A recorded training, and where files go.

    Attributes:
        problem: the training.
        checkpoints: folder of the states at the end of each epoch.
        scratch: folder for files of the library's own.
    """

    problem: Problem
    checkpoints: Path
    scratch: Path

    @property
    def n_epochs(self) -> int:
        """Length of the training in epochs."""
        return int(self.problem.epochs[-1]) + 1

    @property
    def paths(self) -> list[str]:
        """The checkpoints, the final one last."""
        epochs = range(1, self.n_epochs + 1)
        return [str(checkpoint_path(self.checkpoints, epoch)) for epoch in epochs]

    @property
    def net(self) -> nn.Module:
        """The trained net, read from its checkpoint."""
        net = net_of(self.problem)
        net.load_state_dict(torch.load(self.paths[-1]))
        return net


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        package: its name.
        settings: class and arguments, as they are shown.
        score: gives the scores (n,).
        predicts: the scores stand for changes of the validation loss.
        all_checkpoints: it reads those of all epochs, not the final one alone.
    """

    package: str
    settings: str
    score: Callable[[Work], torch.Tensor | np.ndarray]
    predicts: bool = True
    all_checkpoints: bool = False


def cross_entropy_sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the losses of all images (..., K), (...)."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss of all images (..., K), (...)."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def layers_of(net: nn.Module) -> list[str]:
    """The convolutions and affine layers by name: all that holds parameters, BatchNorm excepted."""
    return [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


# ---------------------------------------------------------------- captum


def tracin(work: Work) -> Any:
    """TracInCP over the checkpoints of all epochs, each with its learning rate."""
    from captum.influence import TracInCP

    rate = float(work.problem.rates[0])

    def load(net: nn.Module, path: str) -> float:
        net.load_state_dict(torch.load(path))
        return rate

    net = work.net
    return TracInCP(
        net,
        TensorDataset(*tensors(work.problem)),
        work.paths,
        load,
        layers=layers_of(net),
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH,
        sample_wise_grads_per_batch=True,
    )


def captum_tracin(work: Work) -> torch.Tensor:
    """Influence on the validation set, summed by captum."""
    validation = DataLoader(TensorDataset(*validation_tensors(work.problem)), BATCH)
    return tracin(work).influence(validation, aggregate=True)[0]


def captum_self_influence(work: Work) -> torch.Tensor:
    """Influence of each image on itself, high for wrong labels."""
    return -tracin(work).self_influence()


# ---------------------------------------------------------------- kronfluence


def kronfluence_ekfac(work: Work, damping: float | None = 1e-8) -> torch.Tensor:
    """Pairwise scores with the gradients of the validation set aggregated.

    Args:
        work: the training.
        damping: added to the eigenvalues; None: a tenth of their mean, in each layer.
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Any:
            logits, labels = model(batch[0]), batch[1]
            if sample:
                with torch.no_grad():
                    labels = torch.multinomial(logits.softmax(-1), 1).flatten()
            return cross_entropy_sum(logits, labels)

        def compute_measurement(self, batch: Any, model: nn.Module) -> Any:
            return self.compute_train_loss(batch, model)

    task = Classification()
    analyzer = Analyzer(
        "peers",
        prepare_model(work.net, task),
        task,
        cpu=True,
        disable_tqdm=True,
        output_dir=str(work.scratch),
    )
    training = TensorDataset(*tensors(work.problem))
    analyzer.fit_all_factors(
        "ekfac", training, per_device_batch_size=BATCH, factor_args=FactorArguments("ekfac")
    )
    analyzer.compute_pairwise_scores(
        "scores",
        "ekfac",
        TensorDataset(*validation_tensors(work.problem)),
        training,
        per_device_query_batch_size=BATCH,
        per_device_train_batch_size=BATCH,
        score_args=ScoreArguments(damping_factor=damping, aggregate_query_gradients=True),
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"][0]


# ---------------------------------------------------------------- pyDVL and dattri
# The whole validation set counts as one example there, so that one system is solved, not 600.


def as_examples(problem: Problem) -> tuple[TensorDataset, TensorDataset]:
    """Training images as n examples of one image, validation as one example of n_val images."""
    x, y = tensors(problem)
    x_val, y_val = validation_tensors(problem)
    return TensorDataset(x[:, None], y[:, None]), TensorDataset(x_val[None], y_val[None])


def pydvl_scores(work: Work, influence: Callable[[nn.Module], Any]) -> torch.Tensor:
    """Fit one of pyDVL's influence models and score."""
    training, validation = as_examples(work.problem)
    model = influence(work.net).fit(DataLoader(training, BATCH))
    factor = model.influence_factors(*validation[:])
    batches = DataLoader(training, BATCH)
    return torch.cat([model.influences_from_factors(factor, x, y)[0] for x, y in batches])


def pydvl_cg(work: Work) -> torch.Tensor:
    """Conjugate gradients on the Hessian."""
    from pydvl.influence.torch import CgInfluence

    return pydvl_scores(
        work, lambda net: CgInfluence(net, cross_entropy, regularization=DAMPING, maxiter=50)
    )


def pydvl_arnoldi(work: Work) -> torch.Tensor:
    """The Hessian's largest eigenvalues."""
    from pydvl.influence.torch import ArnoldiInfluence

    return pydvl_scores(
        work, lambda net: ArnoldiInfluence(net, cross_entropy, regularization=DAMPING)
    )


def pydvl_ekfac(work: Work) -> torch.Tensor:
    """EK-FAC, which pyDVL has for linear layers only."""
    from pydvl.influence.torch import EkfacInfluence

    x, y = tensors(work.problem)
    model = EkfacInfluence(work.net, update_diagonal=True, hessian_regularization=DAMPING)
    model.fit(DataLoader(TensorDataset(x, y), BATCH))
    return model.influences(*validation_tensors(work.problem), x, y).mean(0)


def dattri_task(work: Work, net: nn.Module, checkpoints: list[str]) -> Any:
    """The task of dattri: mean losses of the net at some checkpoints."""
    from dattri.task import AttributionTask

    def loss(params: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(torch.func.functional_call(net, params, batch[0]), batch[1])

    return AttributionTask(loss, net, checkpoints)


def dattri_cg(work: Work) -> torch.Tensor:
    """Conjugate gradients; all training images in one batch, as dattri advises."""
    from dattri.algorithm.influence_function import IFAttributorCG

    training, validation = as_examples(work.problem)
    task = dattri_task(work, work.net, work.paths[-1:])
    attributor = IFAttributorCG(task, regularization=DAMPING)
    attributor.cache(DataLoader(training, len(training)))
    return attributor.attribute(
        DataLoader(training, MOST_ROWS), DataLoader(validation, 1)
    ).flatten()


def dattri_tracin(work: Work) -> torch.Tensor:
    """TracIn over the checkpoints of all epochs, without a random projection."""
    from dattri.algorithm.tracin import TracInAttributor

    training, validation = as_examples(work.problem)
    weights = torch.full((work.n_epochs,), float(work.problem.rates[0]))
    task = dattri_task(work, work.net, work.paths)
    attributor = TracInAttributor(task, weights, normalized_grad=False)
    attributor.projector_kwargs = None
    return attributor.attribute(
        DataLoader(training, MOST_ROWS), DataLoader(validation, 1)
    ).flatten()


def projected(n: int) -> int:
    """Dimensions of TRAK's projection: fewer than images, or its matrix is singular."""
    return min(512, n // 2)


def dattri_trak(work: Work, share: float = 0.0) -> torch.Tensor:
    """TRAK at the final checkpoint; its output is the margin log(p / (1 - p)).

    Args:
        work: the training.
        share: of the epochs, counted from the last one, whose checkpoints are averaged over.
    """
    from dattri.algorithm.trak import TRAKAttributor

    net = work.net
    training, validation = as_examples(work.problem)

    def log_p(params: Any, batch: Any) -> torch.Tensor:
        logits = torch.func.functional_call(net, params, batch[0])
        losses = nn.functional.cross_entropy(
            logits.flatten(0, -2), batch[1].flatten(), reduction="none"
        )
        return -losses

    def margin(params: Any, batch: Any) -> torch.Tensor:
        log_of_p = log_p(params, batch)
        return (log_of_p - torch.log1p(-log_of_p.exp() + 1e-7)).mean()

    def probability(params: Any, batch: Any) -> torch.Tensor:
        return log_p(params, batch).exp().mean()

    from dattri.task import AttributionTask

    attributor = TRAKAttributor(
        AttributionTask(margin, net, work.paths[-max(1, round(share * work.n_epochs)) :]),
        probability,
        projector_kwargs={"proj_dim": projected(len(training))},
    )
    attributor.cache(DataLoader(training, BATCH))
    return attributor.attribute(DataLoader(validation, 1)).flatten()


# ---------------------------------------------------------------- TRAK and cleanlab


def trak(work: Work) -> np.ndarray:
    """TRAK's own package on the CPU, at the final checkpoint."""
    from trak import TRAKer

    net, n = work.net, len(work.problem.x)
    traker = TRAKer(
        net,
        "image_classification",
        n,
        save_dir=str(work.scratch),
        device="cpu",
        proj_dim=projected(n),
        use_half_precision=False,
    )
    traker.load_checkpoint(net.state_dict(), model_id=0)
    for x, y in DataLoader(TensorDataset(*tensors(work.problem)), BATCH):
        traker.featurize(batch=[x, y], num_samples=len(x))
    traker.finalize_features()
    x_val, y_val = validation_tensors(work.problem)
    traker.start_scoring_checkpoint("validation", net.state_dict(), 0, len(x_val))
    for x, y in DataLoader(TensorDataset(x_val, y_val), BATCH):
        traker.score(batch=[x, y], num_samples=len(x))
    return np.asarray(traker.finalize_scores("validation")).mean(1)


def cleanlab(work: Work) -> np.ndarray:
    """Label quality by probabilities from 5-fold cross-validation of the same training."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import StratifiedKFold

    problem = work.problem
    x, _ = tensors(problem)
    probabilities = np.empty((len(x), 10))
    folds = StratifiedKFold(5, shuffle=True, random_state=problem.seed)
    for _, held in folds.split(x, problem.labels):
        kept = np.ones(len(x), bool)
        kept[held] = False
        net = net_of(problem, 0)
        train(net, problem, range(len(problem.rates)), kept)
        with torch.no_grad():
            probabilities[held] = net(x[held]).softmax(1).numpy()
    return get_label_quality_scores(problem.labels, probabilities)


# ---------------------------------------------------------------- the table

PEERS: dict[str, Peer] = {
    "captum TracInCP": Peer(
        "captum",
        "TracInCP(checkpoints of all epochs, layers: convolutions and affine, "
        "sample_wise_grads_per_batch), influence(aggregate)",
        captum_tracin,
        all_checkpoints=True,
    ),
    "captum TracInCP self": Peer(
        "captum",
        "as TracInCP, self_influence()",
        captum_self_influence,
        predicts=False,
        all_checkpoints=True,
    ),
    "kronfluence EKFAC": Peer(
        "kronfluence",
        "FactorArguments('ekfac'), ScoreArguments(damping_factor=1e-8 (default), "
        "aggregate_query_gradients)",
        kronfluence_ekfac,
    ),
    "kronfluence EKFAC, damped": Peer(
        "kronfluence",
        "as kronfluence EKFAC, damping_factor=None (a tenth of the mean eigenvalue)",
        partial(kronfluence_ekfac, damping=None),
    ),
    "pyDVL CG": Peer("pyDVL", f"CgInfluence(regularization={DAMPING}, maxiter=50)", pydvl_cg),
    "pyDVL Arnoldi": Peer(
        "pyDVL", f"ArnoldiInfluence(regularization={DAMPING}, rank_estimate=10)", pydvl_arnoldi
    ),
    "pyDVL EKFAC": Peer(
        "pyDVL",
        f"EkfacInfluence(update_diagonal, hessian_regularization={DAMPING})",
        pydvl_ekfac,
    ),
    "dattri CG": Peer(
        "dattri", f"IFAttributorCG(regularization={DAMPING}, max_iter=10)", dattri_cg
    ),
    "dattri TracIn": Peer(
        "dattri",
        "TracInAttributor(checkpoints of all epochs, not normalised, not projected)",
        dattri_tracin,
        all_checkpoints=True,
    ),
    "dattri TRAK": Peer("dattri", "TRAKAttributor(proj_dim=min(512, n/2))", dattri_trak),
    "dattri TRAK, half the epochs": Peer(
        "dattri",
        "as dattri TRAK, at the checkpoints of the last half of the epochs",
        partial(dattri_trak, share=0.5),
        all_checkpoints=True,
    ),
    "TRAK": Peer("traker", "TRAKer('image_classification', proj_dim=min(512, n/2))", trak),
    "cleanlab": Peer(
        "cleanlab",
        "get_label_quality_scores(5-fold cross-validation of the same training)",
        cleanlab,
        predicts=False,
    ),
}


def score(folder: Path, name: str) -> None:
    """Score by a peer; its files and those that it reads are counted."""
    torch.manual_seed(0)
    peer, scratch = PEERS[name], scratch_folder(folder, name)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    work = Work(Problem.load(problem_path(folder)), checkpoints_folder(folder), scratch)
    read = work.paths if peer.all_checkpoints else work.paths[-1:]
    record(
        folder,
        Result(name, f"{peer.package} {version(peer.package)}", peer.settings, peer.predicts),
        lambda: torch.as_tensor(peer.score(work)).detach().numpy(),
        lambda: bytes_of(scratch) + sum(bytes_of(Path(path)) for path in read),
    )


def compare_trainings(folder: Path) -> None:
    """Write how far PyTorch's training is from the product's."""
    problem = Problem.load(problem_path(folder))
    parity_path(folder).write_text(json.dumps(parity(problem)), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the one thing that is asked for, on one core."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    saving, comparing, scoring = map(commands.add_parser, ("checkpoints", "parity", "score"))
    for command in (saving, comparing, scoring):
        command.add_argument("folder", type=Path)
    scoring.add_argument("peer", choices=PEERS)
    options = parser.parse_args(arguments)
    if options.command == "checkpoints":
        problem = Problem.load(problem_path(options.folder))
        save_checkpoints(problem, checkpoints_folder(options.folder))
    elif options.command == "parity":
        compare_trainings(options.folder)
    else:
        score(options.folder, options.peer)


if __name__ == "__main__":
    main()
