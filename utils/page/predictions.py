"""What the page needs besides the results: classes, and predictions for some images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.data.images import decode_images
from utils.data.source import Source
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.ranking import SHOWN_BEST, SHOWN_WORST, shown_of
from utils.output.results import Results
from utils.training.evaluation import Evaluator
from utils.training.models import Model
from utils.training.network import Network, load_state
from utils.training.sgd import SGD, Optimiser


def record_for_page(
    options: Options, source: Source, model: Model, folder: OutputFolder, results: Results
) -> None:
    """Write the names of the classes, and what the models say of the images that the page shows.

    `summary/classes.csv` has the columns label,name; `summary/predictions.csv` the columns
    x:image,y:label,predicted,confidence: the class of the highest probability, which is the mean
    over the final models of all trials.

    Raises:
        UserError: an image or a final model is gone since the run began.
    """
    names = pd.DataFrame({"label": range(len(source.class_names)), "name": source.class_names})
    folder.save_csv(names, folder.classes)
    shown = shown_images(results)
    images = _pixels(source, shown.index.to_numpy(np.int64))
    probabilities = np.mean(
        [net.probabilities(images) for net in _final_nets(options, source, model, images, folder)],
        axis=0,
        dtype=np.float64,
    )
    predicted = {"predicted": probabilities.argmax(axis=1), "confidence": probabilities.max(axis=1)}
    table = shown.assign(**predicted)
    folder.save_csv(table, folder.predictions)
    results.keep(table, folder.predictions)


def shown_images(results: Results) -> pd.DataFrame:
    """Image and label of all that the galleries of the page show, each once, by row."""
    parts = [
        part[[IMAGE, LABEL]]
        for ranking in results.rankings().values()
        for part in shown_of(ranking, SHOWN_WORST, SHOWN_BEST)
    ]
    shown = pd.concat(parts)
    return shown[~shown.index.duplicated()]


def _pixels(source: Source, rows: np.ndarray) -> np.ndarray:
    """The images (N, H, W, C) of some rows (N,)."""
    if source.pool is not None:
        return np.asarray(source.decoded(rows))
    files = list(source.images[IMAGE].iloc[rows])
    return decode_images(files, source.form, files.__getitem__, "reading the images shown")[0]


def _final_nets(
    options: Options, source: Source, model: Model, images: np.ndarray, paths: OutputPaths
) -> Iterable[Evaluator]:
    """The net of each trial as its training ended."""
    _, height, width, channels = images.shape
    for seed in paths.trained():
        network = Network(model, (channels, height, width), source.n_classes, seed, options.conv)
        shapes = SGD(network, Optimiser(options.momentum, options.weight_decay)).state_shapes
        network.load(load_state(paths.final_model(seed), shapes))
        yield Evaluator(network)
