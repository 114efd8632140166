"""Where in the last epoch the worst images sat, compared with chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from utils.output.folder import OutputFolder
from utils.output.results import Results
from utils.page.charts import seat_chart
from utils.page.seats import seats, seats_of_worst
from utils.training.steps import Step, archive_of, plan_steps


def _steps(n_images: int, n_steps: int) -> list[Step]:
    return plan_steps(0, n_images, 2, -(-n_images // n_steps), 0.1)


def _table(order: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"datasource_index": order})


@pytest.mark.parametrize("n_steps", [4, 10, 13, 27])
def test_worst_images_spread_as_all_are_lie_at_one(n_steps: int) -> None:
    """Also where the steps do not divide by the parts of the epoch."""
    steps = _steps(14 * n_steps, n_steps)
    half = np.concatenate([step.indices[::2] for step in steps if step.epoch == 1])
    order = np.concatenate([half, np.setdiff1d(np.arange(14 * n_steps), half)])
    n, ratios = seats_of_worst([_table(order)], [steps])
    assert n == len(half)
    assert ratios == pytest.approx(np.ones(min(10, n_steps)))


def test_worst_images_of_the_last_step_rise_at_the_end() -> None:
    steps = _steps(130, 13)
    order = np.concatenate([step.indices for step in reversed(steps[13:])])
    _, ratios = seats_of_worst([_table(order)], [steps])
    assert ratios[-1] == pytest.approx(2)
    assert ratios[0] == 0
    chart = seat_chart({"Hara": (65, ratios)})
    assert chart.description == "Hara: 2.0 times chance in the last part"


@pytest.mark.parametrize(("n_steps", "methods"), [(1, []), (2, ["Hara"])])
def test_an_epoch_of_one_step_has_no_places(
    n_steps: int, methods: list[str], tmp_path: Path
) -> None:
    folder = OutputFolder(tmp_path)
    folder.save_bytes(archive_of(_steps(20, n_steps)), folder.steps(0))
    folder.save_bytes(b"", folder.final_model(0))
    table = _table(np.arange(20)).assign(**{"x:image": "a", "y:label": 0, "influence": 0.0})
    folder.save_csv(table, folder.influence("Hara", 0))
    results = Results(folder)
    results.keep(table, folder.influence("Hara", 0))
    assert list(seats(results, ["Hara"])) == methods
