"""The formats that images are published in: tar archives, IDX, CIFAR's pickles, STL-10's bytes."""

from __future__ import annotations

import codecs
import gzip
import io
import math
import pickle
import pickletools
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from utils.errors import UserError
from utils.files import check_regular

IDX_LIMIT = 1 << 30  # bytes; MNIST's largest file has 47 MB
CIFAR_LIMIT = 1 << 29  # bytes; all of CIFAR-10 has 186 MB
STL_LIMIT = 1 << 32  # bytes; all of STL-10, with the unlabelled images, has 3.1 GB
STL_SHAPE = (3, 96, 96)  # of an image: channels, columns, rows
UINT8 = 0x08  # IDX type code
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


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

    A name is only compared with those wanted, and is never a path; what is no plain file, such
    as a link, counts as missing. Raises UserError, naming the archive and the member, when all
    members together exceed `limit` bytes, for a member that is missing, and for a damaged
    archive.
    """
    contents: dict[str, bytes] = {}
    try:
        check_regular(archive)
        with _BoundedGzip(archive) as stream:
            stream.limit = limit
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in _members(tar, archive, limit):
                    if member.name in names and member.isreg():
                        contents[member.name] = _member_bytes(tar, member)
    except DAMAGED as error:
        raise UserError(f"{archive}: damaged ({error}); get the file again") from error
    for name in names:
        if name not in contents:
            raise UserError(f"{archive}: the member {name} is missing; get the file again")
    return contents


def _members(tar: tarfile.TarFile, archive: Path, limit: int) -> Iterator[tarfile.TarInfo]:
    """Go through a tar file; the sizes are added up before any content is touched.

    Raises UserError, naming `archive` and the member, when the members exceed `limit` bytes.
    """
    total = 0
    for member in tar:
        total += tarfile.BLOCKSIZE + member.size
        if member.size < 0 or total > limit:
            what = f"member {member.name!r} makes the content larger than {limit} bytes"
            raise UserError(f"{archive}: {what}; don't trust this file, get the published one")
        yield member


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
        raise UserError(f"{path}: no whole IDX file ({error}); get the file again") from error
    if (difference := len(content) - math.prod(shape)) != 0:
        follow = "more" if difference > 0 else f"only {len(content)}"
        counts = f"{math.prod(shape)} bytes, but {follow} follow"
        raise UserError(f"{path}: its header announces {counts}; get the file again")
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


PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
"""The codes that put something into the memo, at the place that follows."""


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
        _check_memo(content)
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        rows = batch[b"data"].rows()
        labels = np.array(batch[b"labels"])
        _check_labels(labels, len(rows))
    except Exception as error:  # arbitrary bytes may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: no CIFAR-10 batch ({reason}); get the file again") from error
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _check_memo(content: bytes) -> None:
    """Refuse places in the memo that no file of this size needs: C's unpickler has room for all.

    Four damaged bytes could otherwise ask for 34 GB of memory.
    """
    for code, place, _ in pickletools.genops(content):
        if code.name in PUTS and isinstance(place, int) and place >= len(content):
            raise pickle.UnpicklingError(f"its memo has no place {place}")


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
        raise UserError(f"{where}: {what}; get the file again")
    classes = np.frombuffer(labels, np.uint8).astype(np.int64) - 1
    if len(classes) != count or classes.min() < 0 or classes.max() > 9:
        what = f"there is not one label from 1 to 10 for each of its {count} images"
        raise UserError(f"{where}: {what}; get the file again")
    pixels = np.frombuffer(images, np.uint8).reshape(count, *STL_SHAPE)
    return pixels.transpose(0, 3, 2, 1), classes
