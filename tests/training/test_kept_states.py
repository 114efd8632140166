"""`--cache` and `--cache_memory`: which states are kept, and that a replay gives the others."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recorded import Recorded
from sgd_influence.replay import LEAST_ROOM, Replay, replayed_steps
from tests.helpers.runs import contents, influence_functions, read_state, record, sgd_influence
from tests.helpers.tiny import digit_images, smooth_net
from utils.errors import UserError
from utils.options import CACHES, FINAL, RECOMPUTE, STEPS
from utils.training.kept_states import kept_steps, longest_segment
from utils.training.models import find_model
from utils.training.network import Network, State, hdf5_of, load_state
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import Step, plan_steps

MLP = "--model mlp -r 0"

# ------------------------------------------------------------------- which states are kept


@pytest.mark.parametrize("where", ["first", "inside", "before"])
def test_recompute_keeps_at_most_sqrt_t_and_two_files(where: str) -> None:
    for n_steps in range(1, 1000):
        covered = range(n_steps, 2 * n_steps)
        start = {"first": n_steps, "inside": n_steps + 2 * n_steps // 3, "before": 0}[where]
        kept = kept_steps(RECOMPUTE, covered, start)
        assert len(kept) + 1 <= math.sqrt(n_steps) + 2  # the final state is a file more
        assert start in kept and covered.start in kept
        assert longest_segment(kept, covered) <= math.isqrt(n_steps) + 2
        if where == "first":
            assert kept == list(covered[:: math.ceil(math.sqrt(n_steps))])


def test_steps_keeps_all_and_final_none_but_the_start_of_retraining() -> None:
    assert kept_steps(STEPS, range(4, 8), 4) == [4, 5, 6, 7]
    assert kept_steps(STEPS, range(4, 8), 0) == [0, 4, 5, 6, 7]
    assert kept_steps(FINAL, range(4, 8), 4) == [4]
    assert kept_steps(FINAL, range(4, 8), 0) == [0]


# ------------------------------------------------------------------- the memory of a replay


class Counter:
    """Stands for an `SGD` whose state before step t is t, and counts the steps."""

    def __init__(self) -> None:
        self.t, self.n_steps = -1, 0

    def load(self, state: State) -> None:
        self.t = int(state["t"][0])

    def step(self, data: object, step: int) -> None:
        assert step == self.t
        self.t, self.n_steps = self.t + 1, self.n_steps + 1

    def state(self) -> State:
        return numbered(self.t)


def numbered(t: int) -> State:
    return {"t": np.array([t])}


@pytest.mark.parametrize("length", [1, 2, 3, 11, 28, 100])
@pytest.mark.parametrize("room", [2, 3, 4, 7, 11, 27, 28, 1000])
def test_a_replay_holds_no_more_than_its_room(length: int, room: int) -> None:
    n_steps = 3 * length
    counter, kept = Counter(), [*range(0, n_steps, length), n_steps]
    replay = Replay(counter, None, range(n_steps), kept, numbered, room)  # type: ignore[arg-type]
    for t in reversed(range(n_steps)):
        assert replay(t)["t"][0] == t
        assert len(replay._held) <= room
    assert counter.n_steps == 3 * replayed_steps(length, room)
    if length <= room:
        assert counter.n_steps == (n_steps if length > 1 else 0)


@pytest.mark.parametrize(("length", "room"), [(28, 27), (28, 12), (100, 20), (782, 56)])
def test_a_segment_split_once_is_trained_twice_at_most(length: int, room: int) -> None:
    assert length < replayed_steps(length, room) <= 2 * length


# ------------------------------------------------------------------- byte by byte the training


class CountingSGD(SGD):
    """Counts its steps."""

    n_steps = 0

    def step(self, data, step: Step, removed: np.ndarray | None = None) -> float:
        self.n_steps += 1
        return super().step(data, step, removed)


def in_files(recorded: Recorded, kept: list[int], folder: Path) -> Callable[[int], State]:
    """Write the states before the steps `kept`, and give what reads them."""
    shapes = {name: array.shape for name, array in recorded.final.items()}
    for t in kept:
        (folder / f"{t}.h5").write_bytes(hdf5_of([*recorded.states, recorded.final][t]))
    return lambda t: load_state(folder / f"{t}.h5", shapes)


OPTIMISERS = {
    "plain": Optimiser(),
    "momentum and L2": Optimiser(momentum=0.9, weight_decay=0.01),
}


@pytest.mark.parametrize("room", [LEAST_ROOM, 1000])
@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS.keys())
@pytest.mark.parametrize("model", [smooth_net, find_model("six_convolutions")])
def test_replayed_states_and_scores_are_those_of_the_training(
    model, optimiser: Optimiser, room: int, tmp_path: Path
) -> None:
    """Augmented batches, a short last one, BatchNorm statistics and velocity."""
    data, validation = digit_images(0, 53), digit_images(100, 130)
    steps = plan_steps(0, 53, 2, 8, 0.05)  # 14 steps, the 7th and 14th of 5 images
    recorded = Recorded(Network(model, (1, 8, 8), 10), data, steps, optimiser)
    kept = [*kept_steps(RECOMPUTE, range(14), 0), 14]
    sgd = CountingSGD(recorded.sgd.network, optimiser)
    replay = Replay(sgd, data, steps, kept, in_files(recorded, kept, tmp_path), room)

    influence = recorded.influence(validation, state_before=replay)
    assert room == LEAST_ROOM or sgd.n_steps <= len(steps)
    assert influence.tobytes() == recorded.influence(validation).tobytes()
    for t in reversed(range(14)):
        state = replay(t)
        assert state.keys() == recorded.states[t].keys()
        assert all(state[k].tobytes() == v.tobytes() for k, v in recorded.states[t].items())


@pytest.mark.parametrize(
    ("more", "n_covered", "little"),
    [
        ("--model mlp -ra --cover_epochs all --momentum 0.9", 8, "2MB"),
        ("--model mlp --verify 6", 4, "1MB"),
        ("--model mlp -ra", 4, "1MB"),
        ("--model mlp --cover_epochs all --batch_size 7", 18, "1MB"),
        ("--model mlp -e 3 --cover_epochs 2 --verify 6 --momentum 0.9", 8, "2MB"),
    ],
)
def test_every_cache_gives_the_same_files(
    more: str, n_covered: int, little: str, tmp_path: Path
) -> None:
    """CSV files, byte by byte; `little` memory splits the segments again."""
    runs = {
        "steps": "--methods Hara Ours --cache steps",
        "recompute": "--methods Hara Ours",
        "little": f"--methods Hara Ours --cache_memory {little}",
        "final": "--methods Ours --cache final",
    }
    for name, arguments in runs.items():
        assert sgd_influence(tmp_path / name, f"-r 0 5 --no_report {more} {arguments}") == 0
    steps, recompute, split, final = (contents(tmp_path / name) for name in runs)
    assert steps == recompute == split
    joint = {name for name in final if "verif" in name or "summary" in name}  # of both methods
    assert {name: final[name] for name in final.keys() - joint}.items() <= steps.items()
    n_files = {name: len(contents(tmp_path / name, "**/*.h5")) for name in runs}
    assert n_files["recompute"] == n_files["little"] <= math.sqrt(n_covered) + 2
    assert n_files["final"] == 2
    assert n_files["steps"] >= n_covered + 1


# ------------------------------------------------------------------- replays that differ


def altered(state: State, by: float) -> State:
    name = next(iter(state))
    return state | {name: state[name] + np.float32(by)}


def test_a_replay_that_differs_is_said_once_and_goes_on_from_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, steps = digit_images(0, 48), plan_steps(0, 48, 1, 8, 0.05)
    recorded = Recorded(Network(smooth_net, (1, 8, 8), 10), data, steps, Optimiser())
    kept, own = [0, 2, 4, 6], altered(recorded.states[2], 0.25)
    recorded.states[2] = own
    replay = Replay(recorded.sgd, data, steps, kept, in_files(recorded, kept, tmp_path), 4)
    given = {t: replay(t) for t in reversed(range(6))}
    printed = [r.getMessage() for r in caplog.records if "replay differs" in r.getMessage()]
    assert len(printed) == 1
    assert "at most in the state before step 4" in printed[0]  # met first, going back

    assert all(np.array_equal(given[2][k], v) for k, v in own.items())
    recorded.sgd.load(own)
    recorded.sgd.step(data, steps[2])
    assert all(np.array_equal(given[3][k], v) for k, v in recorded.sgd.state().items())


def test_the_largest_difference_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, f"{MLP} --methods Random") == 0
    path = tmp_path / "infl_results_sgd/seed_00/final_model.h5"
    path.write_bytes(hdf5_of(altered(read_state(path), 0.25)))
    record(tmp_path, path)
    capsys.readouterr()
    assert sgd_influence(tmp_path, f"{MLP} --methods Hara") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "replay" in line]
    assert len(warnings) == 1
    assert "by 0.25 at most in the state before step 8" in warnings[0]


# ------------------------------------------------------------------- another cache later


@pytest.mark.parametrize("more", ["", "-ra", "--cover_epochs all -ra"])
def test_a_run_goes_on_with_another_cache(more: str, tmp_path: Path) -> None:
    arguments = f"{MLP} {more} --no_report --methods Random"
    assert sgd_influence(tmp_path / "whole", f"{arguments} Hara") == 0
    for first in CACHES:
        output = tmp_path / first
        assert sgd_influence(output, f"{arguments} --cache {first}") == 0
        states = contents(output, "**/*.h5")
        later = STEPS if first == RECOMPUTE else RECOMPUTE
        assert sgd_influence(output, f"{arguments} Hara --cache {later}") == 0
        assert contents(output) == contents(tmp_path / "whole"), first
        assert contents(output, "**/*.h5") == states, first


def test_states_that_were_not_kept_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the start of the last epoch alone two epochs cannot be replayed."""
    more = f"{MLP} --cover_epochs all"
    assert sgd_influence(tmp_path, f"{more} --methods Random --cache final") == 0
    assert sgd_influence(tmp_path, f"{more} --methods Hara") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "epoch00/weights/model_step0000.h5: is not there, and Hara, Hara_exact, " in line
    shutil.rmtree(tmp_path / "infl_results_sgd/seed_00")  # the remedy that the line names
    assert sgd_influence(tmp_path, f"{more} --methods Hara") == 0


def test_final_leaves_hara_out_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path / "a", "--model mlp --cache final --verify 6") == 0
    printed = capsys.readouterr().out
    assert "Ours, Random (Hara is left out: --cache final keeps no states)" in printed
    assert not (tmp_path / "a/influence/Hara").exists()
    assert len(contents(tmp_path / "a", "score/Ours/*.csv")) == 2
    assert influence_functions(tmp_path / "b", f"{MLP} --cache final") == 0
    assert "left out" not in capsys.readouterr().out


# ------------------------------------------------------------------- mistakes

MISTAKES = {
    "--cache all": "argument --cache: invalid choice: 'all' (choose from 'steps', 'recompute', "
    "'final')",
    "--cache final --methods Hara Ours": "--cache final: keeps no states of the steps, which Hara "
    "of --methods needs; give --cache recompute or other --methods",
    "--cache_memory 500": "'500': must be a number above 0 with its unit, such as 500MB or 1.5GiB",
    "--cache_memory MB": "'MB': must be a number",
    "--cache_memory 0MB": "'0MB': must be a number above 0",
    "--cache_memory -2GB": "expected one argument",
    "--cache_memory=-2GB": "'-2GB': must be a number above 0",
    "--cache_memory 1XB": "'1XB': must be a number",
    "--cache_memory nanGB": "'nanGB': must be a number",
    "--cache_memory infGB": "'infGB': must be a number",
    "--cache_memory 1MB": "--cache_memory 1 MB: too little to replay this network, whose state "
    "takes 1.15 MB; give at least 4.64 MB",
    "--dry_run --overwrite": "--dry_run and --overwrite: give one of the two",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistake_is_one_line_and_status_2(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = sgd_influence(tmp_path / "out", arguments)
    except SystemExit as end:  # argparse's own
        status = end.code
    lines = [line for line in capsys.readouterr().err.splitlines() if "No GPU" not in line]
    assert status == 2
    assert len(lines) == 1 and MISTAKES[arguments] in lines[0], lines
    assert not list(tmp_path.glob("out/**/*.csv"))


def test_the_least_memory_that_is_named_is_enough(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, "-r 0 --methods Hara --cache_memory 4.64MB") == 0


def test_steps_needs_no_memory_for_a_replay(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, f"{MLP} --methods Hara --cache steps --cache_memory 1KB") == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(path: Path) -> None:
    state = read_state(path)
    state["affine/b"][3] = np.nan
    path.write_bytes(hdf5_of(state))


def of_another_net(path: Path) -> None:
    path.write_bytes(hdf5_of(Network(find_model("six_convolutions"), (1, 8, 8), 10).state()))


def of_other_sizes(path: Path) -> None:
    path.write_bytes(hdf5_of(Network(find_model("mlp"), (1, 8, 8), 5).state()))


DAMAGES: dict[Callable[[Path], None], str] = {
    cut: "not a readable parameter file",
    with_nan: "affine/b holds values that are not finite",
    of_another_net: "holds the parameters of another net: ",
    of_other_sizes: "holds the parameters of another net: affine/W is (128, 5), here (128, 10)",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with a training and nothing else."""
    output = tmp_path_factory.mktemp("trained")
    assert sgd_influence(output, f"{MLP} --methods Random") == 0
    yield output


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", ["epoch01/weights/model_step0002.h5", "final_model.h5"])
def test_damaged_parameter_file_is_named_with_a_remedy(
    damage: Callable[[Path], None],
    file: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Read by what looks at the file alone; a run that begins recomputes it."""
    output = shutil.copytree(trained, tmp_path / "out")
    path = output / "infl_results_sgd/seed_00" / file
    damage(path)
    with pytest.raises(UserError) as raised:
        read_state(path)
    line = str(raised.value)
    assert line.startswith(f"{path}: ") and DAMAGES[damage] in line and "\n" not in line
    assert line.endswith("; the same command recomputes it")
    assert sgd_influence(output, f"{MLP} --methods Random") == 0
    assert contents(output, "**/*.h5") == contents(trained, "**/*.h5")


def test_a_checkpoint_less_changes_nothing_but_the_work(trained: Path, tmp_path: Path) -> None:
    less = shutil.copytree(trained, tmp_path / "less")
    (less / "infl_results_sgd/seed_00/epoch01/weights/model_step0002.h5").unlink()
    whole = shutil.copytree(trained, tmp_path / "whole")
    for output in (less, whole):
        assert sgd_influence(output, f"{MLP} --methods Hara") == 0
    assert contents(less) == contents(whole)
