"""Published files: found, else downloaded, and held against their MD5 sums."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.data.source import first_writable
from utils.errors import UserError
from utils.files import check_regular

log = logging.getLogger("data_cleansing")
CHUNK = 1 << 20  # bytes downloaded at once
TIMEOUT = 10.0  # seconds without an answer after which a mirror is given up


@dataclass(frozen=True)
class ArchiveFile:
    """One published file: its name, the MD5 sum of the original, and where it may be had."""

    name: str
    md5: str
    urls: tuple[str, ...]


def find_or_download(
    files: Sequence[ArchiveFile], data_dir: Path, cache_dir: Path, allow_unverified: bool
) -> list[Path]:
    """Give the path of every file: in `data_dir`, else in `cache_dir`, else downloaded.

    Downloads go to `data_dir` where that can be written, else to `cache_dir`; they are
    always held against the published MD5 sum. Raises UserError if a file found has another
    MD5 sum and not `allow_unverified` (with it, one warning is logged), and if a file is
    neither there nor to be had.
    """
    folders = (data_dir, cache_dir)
    found = {file.name: find(file.name, folders) for file in files}
    _verify([(file, path) for file in files if (path := found[file.name])], allow_unverified)
    missing = [file for file in files if found[file.name] is None]
    if missing:
        target = first_writable(folders)
        found |= {file.name: _download(file, missing, target) for file in missing}
    return [path for path in found.values() if path is not None]


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """The path of the first file called `name` in `folders`, or None."""
    paths = (folder / name for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None)


def _verify(found: Sequence[tuple[ArchiveFile, Path]], allow_unverified: bool) -> None:
    """Hold each file against its published MD5 sum: UserError, or one warning, if it differs."""
    differing = [path for file, path in found if _md5(path) != file.md5]
    if not differing:
        return
    if allow_unverified:
        names = ", ".join(map(str, differing))
        log.warning("unverified data: the MD5 sum is not the published one of %s", names)
        return
    what = "the MD5 sum is not the published one"
    remedy = "delete the file to have it downloaded, or allow it with --allow_unverified_data"
    raise UserError(f"{differing[0]}: {what}; {remedy}")


def _md5(path: Path) -> str:
    import pooch

    try:
        check_regular(path)
        return pooch.file_hash(path, alg="md5")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make the file readable") from error


def _download(file: ArchiveFile, missing: Sequence[ArchiveFile], folder: Path) -> Path:
    """Fetch one file into `folder`, from the first of its mirrors that gives it whole."""
    reason = "no address is known"
    for url in file.urls:
        try:
            return _fetch(file, url, folder)
        except OSError as error:  # requests' errors are of this kind
            reason = f"{type(error).__name__} at {url}"
        except ValueError:
            reason = f"another MD5 sum at {url}"
    names = ", ".join(other.name for other in missing)
    sources = " or ".join(url.removesuffix(file.name) for url in file.urls)
    remedy = f"get from {sources} and put into {folder}"
    raise UserError(f"{names}: not found and not downloaded ({reason}); {remedy}")


def _fetch(file: ArchiveFile, url: str, folder: Path) -> Path:
    """Download `url`, with a progress bar; the file gets its name when its MD5 sum is right."""
    import pooch
    from tqdm import tqdm

    pooch.get_logger().setLevel(logging.CRITICAL)
    with tqdm(total=1, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT)
        known = f"md5:{file.md5}"
        return Path(pooch.retrieve(url, known, file.name, folder, downloader=downloader))
