"""Score the images of a training loop of your own.

A net in plain nnabla is trained by SGD with momentum on scikit-learn's digits, every tenth of which
has a wrong label. `Recorder` records the last epoch, and scores every training image.

    python examples/own_training_loop.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import nnabla.solvers as S
import numpy as np
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository; needless where it is installed

from sgd_influence import Recorder

BATCH = 32


def model(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """(|B|, 1, 8, 8) images to (|B|, n_classes) logits."""
    h = PF.convolution(x, 16, (3, 3), pad=(1, 1), name="conv")
    h = F.max_pooling(F.relu(PF.batch_normalization(h, batch_stat=not test)), (2, 2))
    return PF.affine(h, n_classes)


def main(n_images: int = 1797, n_epochs: int = 10) -> None:
    """Run the example on the first images, so many epochs."""
    X, right = load_digits(return_X_y=True)
    X = (X[:n_images].reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    n_train = n_images * 3 // 4
    wrong = np.arange(n_train) % 10 == 0
    y = np.where(wrong, (right[:n_train] + 1) % 10, right[:n_train])
    X, X_val, y_val = X[:n_train], X[n_train:], right[n_train:n_images]

    x, t = nn.Variable((BATCH, 1, 8, 8)), nn.Variable((BATCH, 1))
    loss = F.mean(F.softmax_cross_entropy(model(x, 10, test=False), t))
    solver = S.Momentum(lr=0.05, momentum=0.5)
    solver.set_parameters(nn.get_parameters())
    recorder = Recorder(model, y, n_classes=10, weight_decay=1e-4)

    rng = np.random.default_rng(0)
    for epoch in range(n_epochs):
        order = rng.permutation(n_train)
        for start in range(0, n_train - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            x.d, t.d = X[rows], y[rows, None]
            if epoch == n_epochs - 1:
                recorder.record(rows, x.d, solver)  # the one line to add
            loss.forward()
            solver.zero_grad()
            loss.backward()
            solver.weight_decay(1e-4)
            solver.update()
        print(f"Epoch {epoch + 1}: loss of the last batch {float(loss.d):.3f}")

    scores = recorder.score("Hara", X_val, y_val)
    worst = np.argsort(scores)[: wrong.sum()]
    print(f"Hara: {wrong[worst].mean():.0%} of the {len(worst)} worst have wrong labels")
    print("The most harmful images:", ", ".join(f"{i} ({scores[i]:.2g})" for i in worst[:5]))


if __name__ == "__main__":
    main()
