"""Archives of images as their authors publish them: found or downloaded, checked, read."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import logging
import math
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from utils.errors import UserError
from utils.files import check_regular

LOG = logging.getLogger("data_cleansing")
CHUNK = 1 << 20  # bytes read or downloaded at once
TIMEOUT = 10.0  # seconds without an answer after which a mirror is given up
IDX_LIMIT = 1 << 30  # bytes; MNIST's largest file has 47 MB
CIFAR_LIMIT = 1 << 29  # bytes; all of CIFAR-10 has 186 MB
STL_LIMIT = 1 << 32  # bytes; all of STL-10, with the unlabelled images, has 3.1 GB
STL_SHAPE = (3, 96, 96)  # of an image: channels, columns, rows
UINT8 = 0x08  # IDX type code
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArchiveFile:
    """One published file: its name, the MD5 sum of the original, and where it may be had."""

    name: str
    md5: str
    urls: tuple[str, ...]


# ---------------------------------------------------------------- finding and downloading


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


def md5_of(path: Path) -> str:
    """The MD5 sum of a file, as 32 hexadecimal digits. Raises UserError if it can't be read."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        check_regular(path)
        with open(path, "rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make the file readable") from error
    return digest.hexdigest()


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the folders that must be made for it."""
    folders = (folder, *folder.absolute().parents)
    there = next(path for path in folders if os.path.exists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def first_writable(folders: Sequence[Path]) -> Path:
    """The first of `folders` that can be written. Raises UserError if none can."""
    for folder in folders:
        if writable(folder):
            return folder
    names = " nor ".join(dict.fromkeys(map(str, folders)))
    raise UserError(f"{names} cannot be written; give a folder that can be with --data_dir")


def _verify(found: Sequence[tuple[ArchiveFile, Path]], allow_unverified: bool) -> None:
    """Hold each file against its published MD5 sum: UserError, or one warning, if it differs."""
    differing = [path for file, path in found if md5_of(path) != file.md5]
    if not differing:
        return
    if allow_unverified:
        names = ", ".join(map(str, differing))
        LOG.warning("unverified data: the MD5 sum is not the published one of %s", names)
        return
    what = "the MD5 sum is not the published one"
    remedy = "delete the file to have it downloaded, or allow it with --allow_unverified_data"
    raise UserError(f"{differing[0]}: {what}; {remedy}")


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


# ---------------------------------------------------------------- tar files


class _BoundedGzip(gzip.GzipFile):
    """A gzip stream that refuses to read more than `limit` bytes at once.

    tarfile trusts the size of a header when it reads long names and pax records.
    """

    limit = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > self.limit:
            raise tarfile.ReadError(f"a header announces {size} bytes")
        return super().read(size)


def read_members(archive: Path, names: Sequence[str], limit: int) -> dict[str, bytes]:
    """Read the members `names` of a .tar.gz file into memory; nothing is written to disk.

    Every member must be safe, whether needed or not, as `safe_members` says. Raises
    UserError, naming the archive and the member, for what is not safe, for a member that is
    missing, and for a damaged archive.
    """
    contents: dict[str, bytes] = {}
    try:
        check_regular(archive)
        with _BoundedGzip(archive) as stream:
            stream.limit = limit
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in safe_members(tar, archive, limit):
                    if member.name in names and member.isreg():
                        contents[member.name] = _member_bytes(tar, member)
    except DAMAGED as error:
        raise UserError(f"{archive}: damaged ({error}); get the file anew") from error
    for name in names:
        if name not in contents:
            raise UserError(f"{archive}: the member {name} is missing; get the file anew")
    return contents


def safe_members(tar: tarfile.TarFile, archive: Path, limit: int) -> Iterator[tarfile.TarInfo]:
    """Go through a tar file; each member is checked before its content is touched.

    Raises UserError, naming `archive` and the member, for an absolute path, a `..` in
    a path, a link, a special file, and when the members together exceed `limit` bytes.
    """
    total = 0
    for member in tar:
        total += tarfile.BLOCKSIZE + member.size
        if danger := _danger(member, total, limit):
            remedy = "don't trust this file, get the published one"
            raise UserError(f"{archive}: member {member.name!r} {danger}; {remedy}")
        yield member


def _danger(member: tarfile.TarInfo, total: int, limit: int) -> str:
    """What is dangerous about a member, or an empty text."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or path.drive or member.name[1:2] == ":":
        return "has an absolute path"
    if ".." in path.parts:
        return "leaves its folder by '..'"
    if not (member.isreg() or member.isdir()):
        return "is a link or a special file"
    if member.size < 0 or total > limit:
        return f"makes the content larger than {limit} bytes"
    return ""


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise EOFError(f"member {member.name} is cut short")
    return content


# ---------------------------------------------------------------- IDX files (MNIST)


def read_idx(path: Path) -> UInt8:
    """Read a gzip-compressed IDX file of unsigned bytes, of any number of dimensions.

    No more is unpacked than the header announces. Raises UserError, naming the file, if it
    can't be read or unpacked, is no such IDX file, or has fewer or more bytes than its
    header says.
    """
    try:
        check_regular(path)
        with gzip.open(path, "rb") as stream:
            shape = _idx_shape(stream)
            content = stream.read(math.prod(shape) + 1)
    except DAMAGED as error:
        raise UserError(f"{path}: no whole IDX file ({error}); get the file anew") from error
    if (difference := len(content) - math.prod(shape)) != 0:
        follow = "more" if difference > 0 else f"only {len(content)}"
        counts = f"{math.prod(shape)} bytes, but {follow} follow"
        raise UserError(f"{path}: its header announces {counts}; get the file anew")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(stream: IO[bytes] | gzip.GzipFile) -> tuple[int, ...]:
    """Read the header of an IDX file; ValueError if it is none of unsigned bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, UINT8)) or not 1 <= magic[3] <= 4:
        raise ValueError(f"magic number {magic.hex() or 'missing'}")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError("the header is cut short")
    shape = struct.unpack(f">{magic[3]}I", header)
    if math.prod(shape) > IDX_LIMIT:
        raise ValueError(f"its header announces {math.prod(shape)} bytes")
    return shape


# ---------------------------------------------------------------- CIFAR batches


class _Dtype:
    """Stands for numpy.dtype while unpickling."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        self.code = code if isinstance(code, str) else code.decode("latin1")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray while unpickling; holds what NumPy's own would be made of."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rows(self) -> UInt8:
        """The array, uint8 (N, 3072); ValueError if the pickle holds another kind."""
        _, shape, dtype, is_fortran, content = self.state
        if dtype.code not in ("u1", "|u1", "B") or is_fortran or shape[1:] != (3072,):
            raise ValueError("the images are not (N, 3072) unsigned bytes")
        return np.frombuffer(content, np.uint8).reshape(shape)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str | bytes) -> bytes:
    """Python 3 pickles bytes so, in protocol 2."""
    return codecs.latin_1_encode(text)[0]


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays and plain values, and runs nobody's code but ours."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which is refused")
        return ALLOWED[module, name]


def read_cifar_batch(content: bytes, where: str) -> tuple[UInt8, Int64]:
    """Read a batch of CIFAR-10, a pickled dict, without running anything that it names.

    Returns images, uint8 (N, 32, 32, 3), and labels in 0..9, int64 (N,). Raises UserError,
    beginning with `where`, if the pickle asks for anything but NumPy arrays and plain
    values, or if images or labels are not what they should be.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        rows = batch[b"data"].rows()
        labels = np.array(batch[b"labels"])
        _check_labels(labels, len(rows))
    except Exception as error:  # arbitrary bytes may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: no CIFAR-10 batch ({reason}); get the file anew") from error
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _check_labels(labels: npt.NDArray[Any], n_images: int) -> None:
    if labels.shape != (n_images,) or labels.dtype != np.int64:
        raise ValueError(f"there is not one whole number as label for each of {n_images} images")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError("labels from 0 to 9 are needed")


# ---------------------------------------------------------------- STL-10


def read_stl10_part(images: bytes, labels: bytes, where: str) -> tuple[UInt8, Int64]:
    """Read one part of STL-10: unsigned bytes, the pixels of each channel column by column.

    Returns images, uint8 (N, 96, 96, 3), and labels, int64 (N,), 1..10 becoming 0..9. Raises
    UserError, beginning with `where`, if the images are cut, or the labels are not one in
    1..10 for each of them.
    """
    count, rest = divmod(len(images), math.prod(STL_SHAPE))
    if rest or not count:
        what = f"cut short: {len(images)} bytes are no whole number of images"
        raise UserError(f"{where}: {what}; get the file anew")
    classes = np.frombuffer(labels, np.uint8).astype(np.int64) - 1
    if len(classes) != count or classes.min() < 0 or classes.max() > 9:
        what = f"there is not one label from 1 to 10 for each of its {count} images"
        raise UserError(f"{where}: {what}; get the file anew")
    pixels = np.frombuffer(images, np.uint8).reshape(count, *STL_SHAPE)
    return pixels.transpose(0, 3, 2, 1), classes
