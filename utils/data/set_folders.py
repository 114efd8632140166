"""Which folders are classes and which are sets of classes, and which of the two is not clear."""

from __future__ import annotations

import logging
from typing import NamedTuple

from utils.data.folder_tree import Folder, names_of
from utils.data.set_names import UNLABELLED, SetName, is_generic, set_name
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.errors import UserError
from utils.units import counted

log = logging.getLogger("data_cleansing")
IN_ORDER = (TRAINING, VALIDATION, TEST)
AS_LIST = "or list them in a CSV file with the header x:image,y:label"


class ClassFolder(NamedTuple):
    """The images of a class in a set: all that are in `folder`, however deep."""

    name: str
    folder: Folder


Classes = list[ClassFolder]


class _Part(NamedTuple):
    """A folder of the data set; `inner` is the one in it that holds its folders or images."""

    folder: Folder
    inner: Folder
    named: SetName

    @property
    def is_set(self) -> bool:
        """Whether it has the name of a set and holds class folders only."""
        return bool(self.named.kind and self.inner.filled and not self.inner.images)

    def described(self) -> str:
        return f"{self.folder.name} ({self.inner.described()})"


def lowered(root: Folder) -> Folder:
    """The folder to read: below `root` as long as there is only one folder, with folders in it.

    The names do not matter, nor do files that are no images.
    """
    folder = root
    while not folder.images and len(folder.folders) == 1:
        (inner,) = folder.folders
        if inner.images or not inner.filled:
            break
        folder = inner
    if folder is not root:
        names = f"the folder {folder.path.relative_to(root.path)}"
        log.info("%s: holds nothing but %s, which is read", root.path, names)
    return folder


def sets_in(top: Folder) -> dict[str, Classes]:
    """The classes of each set in a folder; without sets, all classes are for training.

    Folders are sets if they have names of sets (`utils.data.set_names`), hold class folders and
    no images, and either no other folder holds images or the sets share names of classes. A class
    may also hold folders for its sets. How sets are read is logged.

    Raises:
        UserError: naming the folders, if they may be sets or classes, if no set is for training,
            if two are the same set, or if all hold folders of the same names.
    """
    parts = _parts(top)
    sets = _group([part for part in parts if part.is_set], parts)
    by_set = _read_sets(top, sets, parts) if sets else None
    if by_set is None:
        _refuse_sets_without_classes(top, parts)
        _refuse_inner_data_sets(top)
        by_set = _sets_of_each_class(top)
    if by_set is not None:
        return by_set
    _refuse_same_folders(top)
    _refuse_one_level_too_high(top)
    _log_folders_below(top)
    return {TRAINING: [ClassFolder(folder.name, folder) for folder in top.folders]}


# ---------------------------------------------------------------- sets of classes


def _parts(top: Folder) -> list[_Part]:
    return [_Part(folder, _unwrapped(folder), set_name(folder.name)) for folder in top.folders]


def _unwrapped(folder: Folder) -> Folder:
    """The folder in a folder that holds nothing else and has its name, or one such as `images`."""
    while not folder.images and len(folder.folders) == 1:
        (inner,) = folder.folders
        same = inner.name.casefold() == folder.name.casefold()
        if not same and not (is_generic(inner.name) and inner.filled and not inner.images):
            break
        folder = inner
    return folder


def _group(sets: list[_Part], parts: list[_Part]) -> list[_Part]:
    """The sets of one data set: folders whose names differ only in the kind of the set.

    `train_station` and `test_tube` are none. A single folder is a set if its name has no other
    words (`train`), or if a folder of `parts` has the same other words (`seg_train`, `seg_pred`).
    """
    groups: dict[tuple[str, ...], list[_Part]] = {}
    for part in sets:
        groups.setdefault(part.named.others, []).append(part)
    several = [g for g in groups.values() if len({part.named.kind for part in g}) > 1]
    if several or not sets:
        return max(several, key=len, default=[])
    (words, *more), (single, *_) = groups, groups.values()
    family = [p for p in parts if p.named.kind and p.named.others == words and p not in single]
    return single if not more and (not words or family) else []


def _read_sets(top: Folder, sets: list[_Part], parts: list[_Part]) -> dict[str, Classes] | None:
    """The sets that these folders are; None if they are classes."""
    others = [part for part in parts if part not in sets]
    classes = [p for p in others if p.folder.holds_images and p.named.kind is None]
    if classes and not _share_classes(sets):
        if not any(part.inner.images for part in classes):
            return None
        _refuse_mixture(top, sets[0], classes[0])
    by_kind = _by_kind(top, sets)
    if TRAINING not in by_kind:
        _refuse_no_training(top, sets, others)
    _log_sets(top, by_kind, [part for part in others if part.folder.files or part.folder.folders])
    return {
        kind: [ClassFolder(folder.name, folder) for folder in by_kind[kind].inner.folders]
        for kind in IN_ORDER
        if kind in by_kind
    }


def _by_kind(top: Folder, sets: list[_Part]) -> dict[str, _Part]:
    """The folder of each kind of set; UserError if two are of the same kind."""
    by_kind: dict[str, _Part] = {}
    for part in sets:
        kind = str(part.named.kind)
        if kind in by_kind:
            both = f"{by_kind[kind].folder.name} and {part.folder.name}"
            remedy = "merge them, or remove one"
            raise UserError(f"{top.path}: {both} are both for {kind}; {remedy}")
        by_kind[kind] = part
    return by_kind


def _share_classes(sets: list[_Part]) -> bool:
    """Whether several sets hold folders of the same names."""
    names = [{folder.name for folder in part.inner.filled} for part in sets]
    return len(sets) > 1 and bool(set.intersection(*names))


def _log_sets(top: Folder, by_kind: dict[str, _Part], others: list[_Part]) -> None:
    read = [
        f"{kind} from {by_kind[kind].inner.path.relative_to(top.path)}"
        for kind in IN_ORDER
        if kind in by_kind
    ]
    log.info("%s: sets are read: %s", top.path, ", ".join(read))
    unused = others + [part for kind, part in by_kind.items() if kind == UNLABELLED]
    if unused:
        described = ", ".join(part.described() for part in unused)
        log.warning("%s: next to the sets, not used: %s", top.path, described)


# ---------------------------------------------------------------- classes of sets


def _sets_of_each_class(top: Folder) -> dict[str, Classes] | None:
    """The sets if each class holds a folder per set (cat/train, cat/test, dog/train); else None."""
    if len(top.filled) < 2 or any(folder.images for folder in top.filled):
        return None
    inner = [(c.name, f, set_name(f.name).kind) for c in top.filled for f in c.filled]
    kinds = {kind for _, _, kind in inner}
    if None in kinds or TRAINING not in kinds or len(kinds) < 2:
        return None
    names = names_of(top.filled[0].filled)
    log.info("%s: each class holds its sets (%s), which are read", top.path, names)
    by_set: dict[str, Classes] = {}
    for name, folder, kind in inner:
        by_set.setdefault(str(kind), []).append(ClassFolder(name, folder))
    return {kind: by_set[kind] for kind in IN_ORDER if kind in by_set}


# ---------------------------------------------------------------- what is not clear


def _refuse_mixture(top: Folder, one: _Part, other: _Part) -> None:
    both = f"{one.described()} looks like a set, {other.described()} like a class"
    remedy = f"give -ds {one.inner.path} for that set alone, or leave nothing but sets or classes"
    raise UserError(f"{top.path}: {both}; {remedy}")


def _refuse_no_training(top: Folder, sets: list[_Part], others: list[_Part]) -> None:
    for part in others:
        if part.named.kind == TRAINING and part.inner.filled and (n := len(part.inner.images)):
            what = f"{counted(n, 'image')} outside of its class folders"
            remedy = "move every image into the folder of its class"
            raise UserError(f"{part.inner.path}: {what}; {remedy}")
    found = ", ".join(part.described() for part in [*sets, *others] if part.folder.holds_images)
    remedy = "a folder train with a folder for each class is needed"
    raise UserError(f"{top.path}: none of its sets is for training, found are {found}; {remedy}")


def _refuse_sets_without_classes(top: Folder, parts: list[_Part]) -> None:
    """Raise if all that holds images has the name of a set and no class folders."""
    filled = [part for part in parts if part.folder.holds_images]
    if not filled or any(part.named.kind is None for part in filled):
        return
    if len(filled) > 1 and not _group(filled, parts):
        return
    found = ", ".join(part.described() for part in filled)
    lists = [file.name for part in filled for file in part.inner.files if _is_csv(file.name)]
    lists += [file.name for file in top.files if _is_csv(file.name)]
    tried = f"; {', '.join(lists)} has no such header" if lists else ""
    remedy = f"put the images of each class into a folder of its own, {AS_LIST}{tried}"
    raise UserError(f"{top.path}: sets without class folders, {found}; {remedy}")


def _refuse_inner_data_sets(top: Folder) -> None:
    """Raise if one of the folders holds sets with class folders of its own."""
    for folder in top.filled:
        parts = _parts(folder)
        sets = _group([part for part in parts if part.is_set], parts)
        if len(sets) > 1:
            names = ", ".join(part.folder.name for part in sets)
            what = f"{folder.name} is a data set of its own, with the sets {names}"
            raise UserError(f"{top.path}: {what}; give -ds {folder.path}")


def _refuse_same_folders(top: Folder) -> None:
    """Raise if all classes hold nothing but folders, and these have the same names."""
    filled = top.filled
    if len(filled) < 2 or any(folder.images for folder in filled):
        return
    same = set.intersection(*({inner.name for inner in folder.filled} for folder in filled))
    if len(same) < 2:
        return
    named = ", ".join(sorted(same)[:5])
    what = f"its folders {names_of(filled)} all hold folders {named}, which may be the classes"
    remedy = f"give one of them (-ds {filled[0].path}), call them train, val and test, {AS_LIST}"
    raise UserError(f"{top.path}: {what}; {remedy}")


def _refuse_one_level_too_high(top: Folder) -> None:
    """Raise if one folder of several holds all images, in folders."""
    several = len(top.folders) > 1 or top.images
    if several and len(top.filled) == 1 and not top.filled[0].images:
        (only,) = top.filled
        what = f"of its folders only {only.name} holds images, in {only.described()}"
        raise UserError(f"{top.path}: {what}; give -ds {only.path}")


def _log_folders_below(top: Folder) -> None:
    deep = [folder for folder in top.filled if folder.filled and not folder.images]
    if deep:
        what = f"{names_of(deep)} hold folders ({names_of(deep[0].filled)})"
        log.info("%s: %s; a class is all that is below its folder", top.path, what)
    if top.images:
        count = counted(len(top.images), "image")
        log.warning("%s: %s outside of the class folders, not used", top.path, count)


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")
