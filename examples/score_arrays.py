"""Find wrong labels and harmful images in NumPy arrays.

Every tenth of scikit-learn's digits gets another label. A net is trained on them, the images are
scored for training from the first step, the labels are checked, and the net is trained again
without what looks wrong.

    python examples/score_arrays.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository; needless where it is installed

from sgd_influence import Cleanser, Images


def main(n_images: int = 1797, n_epochs: int = 8) -> None:
    """Run the example on the first images, so many epochs."""
    X, right = load_digits(return_X_y=True)
    X, right = X[:n_images].reshape(-1, 8, 8) / 16, right[:n_images]
    wrong = np.arange(n_images) % 10 == 0
    y = np.where(wrong, (right + 1) % 10, right)

    images = Images(X, y)
    with Cleanser(
        images, preset="smooth", lr=0.01, n_epochs=n_epochs, retrain_all=True, cover_epochs=None
    ) as cleanser:
        cleanser.fit()
        accuracy = cleanser.learning_curve_["val_accuracy"].iloc[-1]
        print(f"Trained: accuracy on validation images {accuracy:.1%}")

        for method in ("Hara_exact", "AUM"):
            scores = cleanser.score(method)
            worst = np.argsort(scores)[: wrong.sum()]
            print(
                f"{method}: {wrong[worst].mean():.0%} of the {len(worst)} worst have wrong labels"
            )

        issues = cleanser.label_issues()
        suspects = issues.index[issues["is_label_issue"]].to_numpy()
        print(f"Label check: {len(suspects)} labels marked, {wrong[suspects].sum()} of them wrong")
        print(issues.head(5).round(3).to_string())

        mask = np.isin(np.arange(n_images), suspects) & cleanser.training_mask_
        if mask.any():
            print("Retrained without the suspects:")
            print(cleanser.remove(mask).round(4).to_string())


if __name__ == "__main__":
    main()
