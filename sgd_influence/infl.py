"""Stage 2: SGD-influence of each training image, by one sweep back over the recorded steps.

Design section 4; without BatchNorm it is exactly [H] (Hara et al., NeurIPS 2019, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sgd_influence.replay import states_of
from utils.adjoint import Adjoint, StepAdjoint
from utils.console import progress
from utils.images import ImageSet
from utils.network import State
from utils.sgd import step_batch
from utils.steps import Step
from utils.trial import Trial

KINK_WIDTH = 0.3
"""Of `Hara_smoothed`, in root mean squares of a ReLU's inputs (docs/fidelity.md)."""


def sweep(
    adjoint_of: StepAdjoint,
    data: ImageSet,
    steps: Sequence[Step],
    state_before: Callable[[int], State],
    final: Adjoint,
    numbers: Iterable[int],
) -> np.ndarray:
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
        out of the covered steps; negative = harmful.
    """
    influence = np.zeros(len(data))
    adjoint = final
    for t in numbers:
        adjoint_of.network.load(state_before(t))
        x, y = step_batch(data, steps[t], augmented=adjoint_of.optimiser.augmented)
        by_weight, adjoint = adjoint_of(x, y, steps[t].learning_rate, adjoint)
        influence[steps[t].indices] -= by_weight
    return influence


def hara(trial: Trial) -> np.ndarray:
    """SGD-influence of [H]: the sweep over the true states of every covered step."""
    return _sweep_trial(trial, "Hara", states_of(trial))


def hara_smoothed(trial: Trial) -> np.ndarray:
    """[H] with the curvature that the kinks of ReLU have when they are spread a little."""
    return _sweep_trial(trial, "Hara_smoothed", states_of(trial), KINK_WIDTH)


def ours(trial: Trial) -> np.ndarray:
    """The storage-efficient influence of [S]: the same sweep with theta_t := theta_T."""
    final_state = trial.final_state()
    return _sweep_trial(trial, "Ours", lambda t: final_state)


def ours_mean(trial: Trial) -> np.ndarray:
    """As [S], with the mean of the states before the covered steps in the place of the last."""
    mean_state = mean_of(map(states_of(trial), trial.covered[::-1]), len(trial.covered))
    return _sweep_trial(trial, "Ours_mean", lambda t: mean_state)


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
    state_before: Callable[[int], State],
    kink_width: float = 0.0,
) -> np.ndarray:
    descending = trial.covered[::-1]
    return sweep(
        StepAdjoint(trial.network, trial.optimiser, kink_width=kink_width),
        trial.data.training,
        trial.steps,
        state_before,
        trial.final_gradient,
        progress(descending, f"trial {trial.seed}: infl, {method}"),
    )
