"""The true states of the covered steps, from few parameter files and repeated training steps.

Of T covered steps every ceil(sqrt(T))-th state is kept on disk, a checkpoint. The sweep goes back
over the steps; when it enters the segment between two checkpoints, the segment is trained once
more from its start and its states are held in memory. A step can be repeated exactly, so the states
equal those of the training, byte for byte. This takes sqrt(T) files instead of T, and one more
training step per covered step.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from utils.console import progress
from utils.data.images import ImageSet
from utils.errors import UserError
from utils.methods import METHODS
from utils.options import needing_states
from utils.training.kept_states import longest_segment
from utils.training.network import State
from utils.training.sgd import SGD
from utils.training.steps import Step
from utils.training.trial import Trial
from utils.units import shown_bytes

log = logging.getLogger("data_cleansing")

LEAST_ROOM = 2
"""A segment's first state and the one that is asked for."""

COMPARED = 2
"""States in memory, besides those held, while a segment's end is compared with its checkpoint."""


class Replay:
    """Gives the state before each step, for steps asked for in descending order.

    Args:
        sgd: repeats the steps; its network is left at some state of the training.
        data: the n_train training images.
        steps: the recorded steps of the whole training.
        kept: ascending, the steps before which the state was kept; len(steps) is the final state.
        load: reads the kept state before a step.
        room: how many states may be held in memory, at least `LEAST_ROOM`.
        name: of the training, for messages.
    """

    def __init__(
        self,
        sgd: SGD,
        data: ImageSet,
        steps: Sequence[Step],
        kept: Sequence[int],
        load: Callable[[int], State],
        room: int,
        name: str = "replay",
    ) -> None:
        self.sgd, self.data, self.steps = sgd, data, steps
        self.kept, self.load = kept, load
        self.room, self.name = room, name
        self._held: dict[int, State] = {}
        self._differed = False

    def __call__(self, t: int) -> State:
        """s_t, as the training had it; not before the first kept state."""
        start = self.kept[bisect_right(self.kept, t) - 1]
        entered = start not in self._held
        if entered:
            self._held = {start: self.load(start)}
        self._held = {s: state for s, state in self._held.items() if s <= t}
        while (last := max(self._held)) < t:
            self._advance(last, t)
        if entered and start < t and t + 1 in self.kept:
            self._compare_end(t)
        return self._held[t]

    def _advance(self, start: int, t: int) -> None:
        """Train from the held state before `start` towards t, holding what there is room for."""
        places = held_places(start, t, self.room - len(self._held))
        self.sgd.load(self._held[start])
        for s in progress(range(start, places[-1]), f"{self.name}: replay"):
            self.sgd.step(self.data, self.steps[s])
            if s + 1 in places:
                self._held[s + 1] = self.sgd.state()

    def _compare_end(self, t: int) -> None:
        """Repeat step t, the segment's last, and warn once if the next checkpoint differs."""
        self.sgd.step(self.data, self.steps[t])
        difference = _difference(self.sgd.state(), self.load(t + 1))
        if difference is not None and not self._differed:
            self._differed = True
            log.warning(
                "%s: the replay differs from the recorded training, by %.2g at most in the state "
                "before step %d (another CPU, or a GPU without its deterministic mode?); every "
                "segment starts from its own checkpoint, so the scores differ little. --cache "
                "steps needs no replay.",
                self.name, difference, t + 1,
            )  # fmt: skip


def held_places(start: int, t: int, room: int) -> Sequence[int]:
    """Which states to hold, ascending, when training from `start` towards t.

    All of them up to t if there is room. If not, the segment is split again: half of the room
    takes states at equal distances short of t, and the parts are replayed in what is left.

    Args:
        start: the step whose state is held already.
        t: the step whose state is asked for, above `start`.
        room: how many more states may be held, at least 1.
    """
    if t - start <= room:
        return range(start + 1, t + 1)
    if room == 1:
        return range(t, t + 1)
    distance = math.ceil((t - start) / (room // 2 + 1))
    return range(start + distance, t, distance)


def replayed_steps(length: int, room: int) -> int:
    """Training steps that the replay of a segment takes, including the one that reaches its end.

    Args:
        length: steps from one kept state to the next; 1 needs no replay.
        room: as in `Replay`.
    """
    held, n_steps = [0], 0
    for t in reversed(range(length)):
        held = [s for s in held if s <= t]
        while held[-1] < t:
            places = held_places(held[-1], t, room - len(held))
            n_steps += places[-1] - held[-1]
            held += places
    return n_steps + (length > 1)


def room_for(cache_memory: int, state_bytes: int) -> int:
    """How many states `Replay` may hold within `cache_memory` bytes.

    Raises:
        UserError: there is not even room for `LEAST_ROOM`.
    """
    room = cache_memory // state_bytes - COMPARED
    if room < LEAST_ROOM:
        least = shown_bytes(math.ceil((LEAST_ROOM + COMPARED) * state_bytes * 1.005))
        raise UserError(
            f"--cache_memory {shown_bytes(cache_memory)}: too little to replay this network, "
            f"whose state takes {shown_bytes(state_bytes)}; give at least {least}"
        )
    return room


def states_there(trial: Trial) -> list[int]:
    """The steps whose states are on disk, ascending, whatever cache the training had.

    Raises:
        UserError: none of them is at or before the first covered step.
    """
    kept = trial.states_there()
    if not kept or kept[0] > trial.covered_start:
        need = ", ".join(needing_states(tuple(METHODS)))
        raise UserError(
            f"{trial.state_path(trial.covered_start)}: is not there, and {need} need it; leave "
            "them out of --methods, or delete the folder of its trial (seed_...) and give the same "
            "command again, which trains the trial again"
        )
    return kept


def states_of(trial: Trial) -> Callable[[int], State]:
    """The true state before every covered step of a trial, whatever was kept of them.

    Raises:
        UserError: as `states_there` and `room_for`.
    """
    kept = states_there(trial)
    if longest_segment(kept, trial.covered) == 1:
        return trial.state_before
    room = room_for(trial.cache_memory, trial.state_bytes)
    kept.append(len(trial.steps))  # the final state
    data, name = trial.data.training, f"trial {trial.seed}"
    return Replay(trial.sgd, data, trial.steps, kept, trial.state_before, room, name)


def _difference(a: State, b: State) -> float | None:
    """The largest absolute difference of two states; None if they are equal byte by byte."""
    unequal = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    return max((float(np.abs(a[k] - b[k]).max()) for k in unequal), default=None)
