"""Whether a training taught the net more than guessing."""

from __future__ import annotations

import numpy as np
import pandas as pd


def no_better_than_guessing(
    curve: pd.DataFrame, training: np.ndarray, validation: np.ndarray
) -> str:
    """A clause on why a net seems to have learnt nothing; empty if it has learnt.

    Args:
        curve: the learning curve.
        training: labels (n_train,).
        validation: labels (n_val,).
    """
    if never := loss_never_falls(curve, training):
        return f"{never}; the scores mean nothing"
    return may_be_guessing(curve, validation)


def may_be_guessing(curve: pd.DataFrame, validation: np.ndarray) -> str:
    """A clause if the validation accuracy is within what guessing reaches; arguments as above."""
    accuracy, lucky = curve["val_accuracy"].iloc[-1], lucky_accuracy(validation)
    if not accuracy <= lucky < 1:
        return ""
    last = f"{accuracy:.1%} at the end, and guessing reaches up to {lucky:.1%}"
    return f"validation accuracy may be that of guessing: {last}; the scores mean little then"


def loss_never_falls(curve: pd.DataFrame, training: np.ndarray) -> str:
    """A clause if the training loss never falls, else empty; arguments as above.

    An epoch's training loss is the mean of the losses before each of its steps, so a training of
    one epoch does not show what it taught; the validation loss after it does.
    """
    loss, guessing = curve["train_loss"].min(), guessing_loss(training)
    shown = min(loss, curve["val_loss"].iloc[0]) if len(curve) == 1 else loss
    if shown < 0.99 * guessing:
        return ""
    least = f"{loss:.3f} at best, {guessing:.3f} by guessing"
    return f"training loss never falls below guessing: {least}"


def lucky_accuracy(labels: np.ndarray) -> float:
    """The accuracy on `labels` (N,) of naming their largest class, plus two standard errors."""
    share = float(np.bincount(labels).max()) / len(labels)
    return share + 2 * float(np.sqrt(share * (1 - share) / len(labels)))


def guessing_loss(labels: np.ndarray) -> float:
    """Cross-entropy (nats) of guessing by the shares of the classes in `labels` (n_train,)."""
    shares = np.bincount(labels)[np.unique(labels)] / len(labels)
    return float(-(shares * np.log(shares)).sum())
