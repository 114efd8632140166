"""The data set before and after a review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.decisions import DECISION, NEW_LABEL, REMOVE
from utils.data.label_table import SETS
from utils.data.source import TEST, TRAINING


@dataclass(frozen=True)
class Reviewed:
    """A data set before and after a review.

    Attributes:
        before, after: by set, a table with x:image, y:label, row, and the user's further columns
            under the names of `read_given`, in the order of the data set.
        class_names: by label.
        decided_test: the decision on each test image that has one.
    """

    before: Mapping[str, pd.DataFrame]
    after: Mapping[str, pd.DataFrame]
    class_names: Mapping[int, str]
    decided_test: pd.Series

    @classmethod
    def of(
        cls,
        issues: pd.DataFrame,
        given: pd.DataFrame,
        decided: pd.DataFrame,
        class_names: Mapping[int, str],
    ) -> Reviewed:
        """Apply decisions, as `merged` gives them, to the table of all images.

        Args:
            issues: of `read_label_issues`.
            given: of `read_given`.
            decided: the decisions.
            class_names: by label.
        """
        rows = issues[[IMAGE, LABEL, SET, ROW]].sort_values(ROW, kind="stable")
        rows = rows.join(given, on=[SET, ROW])
        by_place = decided.set_index([SET, ROW])[[DECISION, NEW_LABEL]]
        joined = rows.join(by_place, on=[SET, ROW])
        new = joined[NEW_LABEL].fillna(joined[LABEL]).astype("int64")
        left = rows[joined[DECISION] != REMOVE].assign(**{LABEL: new})
        is_test = decided[SET] == TEST
        return cls(_by_set(rows), _by_set(left), dict(class_names), decided[is_test][DECISION])

    @property
    def changes_training(self) -> bool:
        """Whether a training image is removed or gets another label."""
        return not self.before[TRAINING].equals(self.after[TRAINING])

    @property
    def changes_test(self) -> bool:
        """The same for test images."""
        return not self.before[TEST].equals(self.after[TEST])


def _by_set(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    by_set = {part: rows[rows[SET] == part] for part in SETS}
    return {part: table.drop(columns=SET).reset_index(drop=True) for part, table in by_set.items()}
