"""The tables of a folder by image: kept in memory during a run, read once afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.errors import one_line
from tests.helpers.runs import sgd_influence
from utils.columns import IMAGE, INDEX, LABEL, SEED, TO, TRUE
from utils.errors import UserError
from utils.output.paths import OutputPaths
from utils.output.results import Results
from utils.output.storage import read_csv, save_csv

Named = Sequence[tuple[str, int]]
"""Path and label of the training images of a trial."""


def influence_of(images: Named, order: Sequence[int]) -> pd.DataFrame:
    """The influence table of a trial; `order`: its training images, the worst first."""
    paths, labels = zip(*(images[index] for index in order), strict=True)
    values = np.arange(len(order), dtype=float)
    return pd.DataFrame({IMAGE: paths, LABEL: labels, "influence": values, INDEX: order})


def folder_of(root: Path, *trials: Named) -> OutputPaths:
    """An output folder in which Hara scored the images of some trials, in their order."""
    paths = OutputPaths(root)
    for seed, images in enumerate(trials):
        save_csv(influence_of(images, range(len(images))), paths.influence("Hara", seed))
    return paths


# ---------------------------------------------------------------- rows


def test_an_image_named_twice_is_two_rows(tmp_path: Path) -> None:
    images = [("/b", 0), ("/a", 1), ("/a", 0), ("/c", 0), ("/c", 0)]
    ranking = Results(folder_of(tmp_path, images, images[::-1])).rankings()["Hara"]
    assert len(ranking) == 5
    assert ranking["n_trials"].tolist() == [2] * 5
    assert ranking.index.is_unique


def test_images_are_numbered_by_path_label_and_order(tmp_path: Path) -> None:
    first, second = [("/b", 0), ("/a", 1), ("/a", 0)], [("/c", 3), ("/a", 1)]
    results = Results(folder_of(tmp_path, first, second))
    assert results.influence("Hara", 0).index.tolist() == [2, 1, 0]
    assert results.influence("Hara", 1).index.tolist() == [3, 1]


def test_two_labels_that_were_flipped_to_one_stay_two_rows(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, [("/a", 5), ("/a", 5)], [("/a", 5)])
    rows = [(0, "/a", 1, 5, 0), (1, "/a", 2, 5, 0), (0, "/a", 2, 5, 1)]
    flips = pd.DataFrame(rows, columns=[INDEX, IMAGE, TRUE, TO, SEED])
    save_csv(flips, paths.flipped_labels)
    results = Results(paths)
    assert results.influence("Hara", 0).index.tolist() == [0, 1]
    assert results.influence("Hara", 1).index.tolist() == [1]
    assert results.given_labels() == {0: 1, 1: 2}


def test_the_rows_of_a_source_go_before_names(tmp_path: Path) -> None:
    images = [("/b", 0), ("/a", 1)]
    save_csv(influence_of(images, [1, 0]), OutputPaths(tmp_path).influence("Hara", 7))
    results = Results(OutputPaths(tmp_path), {7: np.array([30, 40])}.__getitem__)
    assert results.influence("Hara", 7).index.tolist() == [40, 30]
    assert results.rankings()["Hara"].index.tolist() == [40, 30]


def test_tables_that_name_images_get_their_rows(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, [("/b", 0), ("/a", 1), ("/a", 0), ("/c", 0), ("/c", 0)])
    table = pd.DataFrame({IMAGE: ["/c", "/z", "/a", "/c"], LABEL: [0, 0, 0, 0]})
    save_csv(table.assign(predicted=3, confidence=0.5), paths.predictions)
    predictions = Results(paths).predictions()
    assert predictions is not None
    assert predictions.index.tolist() == [3, -1, 0, 4]
    assert Results(paths).removed("Hara") is None


def test_places_that_are_equal_go_by_name(tmp_path: Path) -> None:
    images = [("/b", 0), ("/a", 0)]
    tables = [influence_of(images, order) for order in ([0, 1], [1, 0])]
    results = Results(OutputPaths(tmp_path), lambda seed: np.array([8, 9]))
    for seed, table in enumerate(tables):
        save_csv(table, results.paths.influence("Hara", seed))
    assert results.rankings()["Hara"][IMAGE].tolist() == ["/a", "/b"]


# ---------------------------------------------------------------- memory


def test_a_table_is_read_once_and_one_that_is_kept_not_at_all(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, [("/a", 0), ("/b", 1)])
    results = Results(paths)
    before = results.influence("Hara", 0)
    kept = influence_of([("/a", 0), ("/b", 1)], [1, 0])
    results.keep(kept, paths.influence("Hara", 1))
    paths.influence("Hara", 0).unlink()
    assert results.influence("Hara", 0) is before
    assert results.influence("Hara", 1) is kept


def test_a_run_parses_no_table_of_images_or_scores_that_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, read = [], pd.read_csv

    def recorded(path, *arguments, **named):
        parsed.append(Path(path).name)
        return read(path, *arguments, **named)

    monkeypatch.setattr(pd, "read_csv", recorded)
    more = "--model mlp --methods AUM Random --cleanse_n 5 --flip_labels 0.2 --verify 6"
    assert sgd_influence(tmp_path, more) == 0
    assert (tmp_path / "report" / "index.html").exists()
    assert set(parsed) <= {"learning_curve.csv", "prepared_images.csv", "classes.csv"}


@pytest.mark.parametrize(
    ("index", "printed"),
    [([0, 0, 1], "3 training images once"), ([0, 1, 3], "3 rows, 3 images")],
)
def test_an_influence_table_holds_each_image_once(
    tmp_path: Path, index: list[int], printed: str
) -> None:
    paths = folder_of(tmp_path, [("/a", 0), ("/b", 1), ("/c", 1)])
    path = paths.influence("Hara", 0)
    save_csv(read_csv(path).assign(**{INDEX: index}), path)
    for results in (Results(paths), Results(paths, lambda seed: np.arange(3))):
        with pytest.raises(UserError) as caught:
            results.influence("Hara", 0)
        one_line(caught, path, printed)


def test_an_influence_table_of_another_size_is_refused(tmp_path: Path) -> None:
    results = Results(folder_of(tmp_path, [("/a", 0)]), lambda seed: np.arange(2))
    with pytest.raises(UserError) as caught:
        results.influence("Hara", 0)
    one_line(caught, "each of the 2 training images once", "1 rows")
