"""Stage 2: SGD-influence of each training image, by one sweep back over the recorded steps.

Two sweeps (docs/how_it_works.md): the damped one of the code that [H] (Hara et al., NeurIPS 2019)
published, from which the papers' figures come, and the exact one of [H]'s text, algorithm 2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from sgd_influence.replay import states_of
from utils.console import progress
from utils.data.images import ImageSet
from utils.methods import Scores
from utils.training.adjoint import Adjoint, DampedAdjoint, StepAdjoint
from utils.training.from_scratch import kinks_in
from utils.training.network import Network, State
from utils.training.sgd import Optimiser, step_batch
from utils.training.steps import Step
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

KINK_WIDTH = 0.3
"""How far `Hara_smoothed` spreads a kink, in root mean squares of a ReLU's inputs."""


def sweep(
    adjoint_of: StepAdjoint,
    data: ImageSet,
    steps: Sequence[Step],
    state_before: Callable[[int], State],
    final: Adjoint,
    numbers: Iterable[int],
) -> Scores:
    """Sum the influences over the covered steps, last step first.

        I_i += -dJ_t/dw_i  for i in B_t,     (u_t, v_t) = dJ_t/d(theta, r)

    Args:
        adjoint_of: the adjoint of one step, on the network that is loaded with each state.
        data: the n_train training images.
        steps: the recorded steps.
        state_before: gives s_t; the true state of every step for [H], always s_T for [S].
        final: (u_T, v_T), the derivatives of the validation loss by the final state.
        numbers: the covered steps, descending.

    Returns:
        (n_train,) float64 predicted change of the mean validation loss when the image is left
        out of the covered steps, negative = harmful; and the growth max_t |u_t| / |u_T|.
    """
    influence = np.zeros(len(data))
    adjoint, longest = final, final.length
    for t in numbers:
        adjoint_of.network.load(state_before(t))
        x, y = step_batch(data, steps[t], augmented=adjoint_of.optimiser.augmented)
        by_weight, adjoint = adjoint_of(x, y, steps[t].learning_rate, adjoint)
        influence[steps[t].indices] -= by_weight
        longest = max(longest, adjoint.length)
    return Scores(influence, growth=longest / final.length if final.length else 1.0)


def hara(trial: Trial) -> Scores:
    """SGD-influence as [H] computed it: the damped sweep over the true states of the steps."""
    return _sweep_trial(trial, "Hara", DampedAdjoint, states_of(trial))


def hara_exact(trial: Trial) -> Scores:
    """SGD-influence as [H] defines it: the exact sweep over the true states of the steps."""
    return _sweep_trial(trial, "Hara_exact", StepAdjoint, states_of(trial))


def hara_smoothed(trial: Trial) -> Scores:
    """`hara_exact` with the curvature that the kinks of ReLU have when they are spread a little."""
    if not {"ReLU", "FusedBatchNormalization"} & {*kinks_in(trial.network)}:
        what = "the net has no ReLU, so the scores by Hara_smoothed are those by Hara_exact"
        log.warning("Trial %d: %s", trial.seed, what)
    smoothed = partial(StepAdjoint, kink_width=KINK_WIDTH)
    return _sweep_trial(trial, "Hara_smoothed", smoothed, states_of(trial))


def ours(trial: Trial) -> Scores:
    """The storage-efficient influence of [S]: the damped sweep with theta_t := theta_T."""
    final_state = trial.final_state()
    return _sweep_trial(trial, "Ours", DampedAdjoint, lambda t: final_state)


def ours_exact(trial: Trial) -> Scores:
    """The exact sweep with theta_t := theta_T; over many steps it may grow without bound."""
    final_state = trial.final_state()
    return _sweep_trial(trial, "Ours_exact", StepAdjoint, lambda t: final_state)


def ours_mean(trial: Trial) -> Scores:
    """The exact sweep with the mean of the states before the covered steps in every step."""
    mean_state = mean_of(map(states_of(trial), trial.covered[::-1]), len(trial.covered))
    return _sweep_trial(trial, "Ours_mean", StepAdjoint, lambda t: mean_state)


def mean_of(states: Iterable[State], n_states: int) -> State:
    """The mean of some states, by name; sums are held in double precision."""
    total: State = {}
    for state in states:
        total = {name: total.get(name, 0.0) + array.astype(float) for name, array in state.items()}
    return {name: (array / n_states).astype(np.float32) for name, array in total.items()}


def random(trial: Trial) -> np.ndarray:
    """The control: each image's position in a permutation drawn from the trial's seed."""
    return np.random.default_rng([trial.seed, 1]).permutation(trial.n_train)


def _sweep_trial(
    trial: Trial,
    method: str,
    adjoint: Callable[[Network, Optimiser], StepAdjoint],
    state_before: Callable[[int], State],
) -> Scores:
    descending = trial.covered[::-1]
    return sweep(
        adjoint(trial.network, trial.optimiser),
        trial.data.training,
        trial.steps,
        state_before,
        trial.final_gradient,
        progress(descending, f"trial {trial.seed}: infl, {method}"),
    )
