"""The options that results depend on, kept beside the results.

A rerun with other values into the same folder is refused, so that no result of one setting is
taken for one of another.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping

from utils.errors import UserError
from utils.options import Options
from utils.paths import RESULT_FOLDERS, OutputPaths
from utils.storage import save_json

Settings = dict[str, object]

RESULT_OPTIONS = (
    "dataset", "n_epochs", "batch_size", "lr", "lr_schedule", "momentum",
    "weight_decay", "model", "conv", "retrain_all", "n_train", "n_val", "n_test", "split_seed",
    "image_size", "color", "damping",
)  # fmt: skip


def settings_of(options: Options, data_fingerprint: str) -> Settings:
    """What the results depend on. More trials, more n and more methods only extend them."""
    chosen = {name: getattr(options, name) for name in RESULT_OPTIONS}
    others = {"command": options.program, "data": data_fingerprint}
    return chosen | {"cover_epochs": options.n_covered_epochs} | others


def claim_output_folder(paths: OutputPaths, settings: Settings, overwrite: bool) -> None:
    """Make the output folder this run's own, or take up an earlier run of the same settings.

    Raises:
        UserError: as `check_output_folder`.
    """
    if check_output_folder(paths, settings, overwrite):
        for folder in RESULT_FOLDERS:
            shutil.rmtree(paths.root / folder, ignore_errors=True)
    save_json(settings, paths.settings)


def check_output_folder(paths: OutputPaths, settings: Settings, overwrite: bool) -> bool:
    """Whether results of other settings are there, which `overwrite` allows to delete.

    Raises:
        UserError: results of other settings are there and `overwrite` is False; the line names
            each option that differs with both values. Or it is no folder, or not of a run.
    """
    if paths.root.exists() and not paths.root.is_dir():
        raise UserError(f"--output_dir {paths.root}: is a file; name a folder")
    has_results = any((paths.root / folder).exists() for folder in RESULT_FOLDERS)
    differences = _differences(_load(paths), settings) if has_results else []
    if differences and not overwrite:
        raise UserError(
            f"{paths.root}: holds results of other options: {'; '.join(differences)}; "
            "choose another --output_dir, or delete them with --overwrite"
        )
    return bool(differences)


def _load(paths: OutputPaths) -> Settings:
    try:
        settings = json.loads(paths.settings.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{paths.root}: holds folders of a run ({', '.join(RESULT_FOLDERS)}) without the "
            f"{paths.settings.name} of one; choose another --output_dir"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{paths.settings}: cannot be read ({error}); choose another --output_dir"
        ) from error
    if not isinstance(settings, dict):
        raise UserError(f"{paths.settings}: holds no settings; choose another --output_dir")
    return settings


def _differences(there: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    names = sorted(there.keys() | wanted.keys())
    return [
        f"{_shown(name)} was {there.get(name)}, now {wanted.get(name)}"
        for name in names
        if there.get(name) != wanted.get(name)
    ]


def _shown(name: str) -> str:
    return f"the {name}" if name in ("command", "data") else f"--{name}"
