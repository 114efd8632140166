"""The formats of published images, and what is wrong with files of them."""

from __future__ import annotations

import functools
import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.make_archives import cifar_batch, python2_pickle, write_idx, write_tar
from tests.helpers.errors import one_line
from utils.data.formats import read_cifar_batch, read_idx, read_members
from utils.errors import UserError

ANY_BYTES = settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
LIMIT = 1 << 20


# ---------------------------------------------------------------- tar files


def write_one_member(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(content))
    return path


def member_of(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, "wanted"
    return member


def test_members_are_read_and_nothing_is_written(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    write_tar([("d/one", b"1" * 700), ("d/two", b""), ("d/three", b"3")], archive)
    assert read_members(archive, ["d/one", "d/two"], LIMIT) == {"d/one": b"1" * 700, "d/two": b""}
    assert os.listdir(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "C:\\evil"])
def test_a_name_of_a_member_is_no_path(tmp_path: Path, name: str) -> None:
    """Whatever else an archive holds, what is wanted is read and nothing is written."""
    folder = tmp_path / "archives"
    folder.mkdir()
    write_tar([(name, b"evil"), ("wanted", b"image")], folder / "a.tar.gz")
    assert read_members(folder / "a.tar.gz", ["wanted"], LIMIT) == {"wanted": b"image"}
    assert [path.name for path in tmp_path.rglob("*")] == ["archives", "a.tar.gz"]


SPECIAL = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_link_or_a_special_file_is_no_content(tmp_path: Path, kind: bytes) -> None:
    archive = write_one_member(tmp_path / "a.tar.gz", member_of("wanted", kind))
    with pytest.raises(UserError) as caught:
        read_members(archive, ["wanted"], LIMIT)
    one_line(caught, archive, "the member wanted is missing")


@pytest.mark.parametrize("name", ["wanted", "other"])
def test_a_member_of_a_hundred_gigabytes_is_refused_by_its_header(
    tmp_path: Path, name: str
) -> None:
    header = member_of(name, size=100 * 10**9).tobuf(tarfile.GNU_FORMAT)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(header + bytes(10_000)))
    with pytest.raises(UserError) as caught:
        read_members(archive, ["wanted"], LIMIT)
    one_line(caught, archive, name, f"larger than {LIMIT} bytes")


def test_many_members_count_together(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    write_tar([(f"member{number}", bytes(1000)) for number in range(10)], archive)
    with pytest.raises(UserError, match=r"'member6'.*larger"):
        read_members(archive, ["member9"], 10_000)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_huge_name_is_refused_by_its_header(tmp_path: Path, kind: bytes) -> None:
    header = member_of("name", kind, size=100 * 10**9).tobuf(tarfile.GNU_FORMAT)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(header + bytes(10_000)))
    with pytest.raises(UserError, match=r"a\.tar\.gz: damaged.*announces 100"):
        read_members(archive, ["wanted"], LIMIT)


def test_missing_members_and_damaged_archives_are_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    write_tar([("one", os.urandom(5000))], archive)
    with pytest.raises(UserError, match="member wanted is missing"):
        read_members(archive, ["wanted"], LIMIT)
    for content in (archive.read_bytes()[:2500], b"no gzip", b"", gzip.compress(b"no tar" * 100)):
        archive.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_members(archive, ["one"], LIMIT)
        one_line(caught, archive, "get the file again")


@ANY_BYTES
@given(content=st.binary(max_size=1500))
def test_arbitrary_bytes_as_tar_are_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(content))
    with pytest.raises(UserError):
        read_members(archive, ["one"], LIMIT)


# ---------------------------------------------------------------- IDX files


@pytest.mark.parametrize("shape", [(3, 28, 28), (5,), (0,), (2, 3, 4, 5)])
def test_idx_of_any_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_idx(array, tmp_path / "a.gz")
    result = read_idx(tmp_path / "a.gz")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


def idx_bytes(*counts: int, magic: bytes = b"\0\0\x08\x03", content: bytes = b"") -> bytes:
    return magic + struct.pack(f">{len(counts)}I", *counts) + content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx_bytes(2, 2, 2, content=bytes(7)), "8 bytes, but only 7 follow"),
        (idx_bytes(2, 2, 2), "8 bytes, but only 0 follow"),
        (idx_bytes(2, 2, 2, content=bytes(9)), "8 bytes, but more follow"),
        (idx_bytes(0, 2, 2, content=bytes(9)), "0 bytes, but more follow"),
        (idx_bytes(2, 2), "header is cut short"),
        (idx_bytes(2, 2, 2, magic=b"\0\0\x0d\x03"), "magic number 00000d03"),
        (idx_bytes(2, 2, 2, magic=b"\x89PNG"), "magic number 89504e47"),
        (idx_bytes(magic=b"\0\0\x08\0"), "magic number 00000800"),
        (b"\0", "magic number 00"),
        (b"", "magic number missing"),
        (idx_bytes(2**32 - 1, 2**32 - 1, 2**32 - 1), "announces 79228162458924105385300197375"),
    ],
)
def test_what_is_wrong_with_an_idx_file_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UserError) as caught:
        read_idx(path)
    one_line(caught, path, words, "get the file again")


def test_no_more_is_unpacked_than_the_header_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_bytes(2, 2, 2, content=bytes(10**7))))
    asked: list[int] = []
    read = gzip.GzipFile.read

    def counted(stream: gzip.GzipFile, size: int = -1) -> bytes:
        asked.append(size)
        return read(stream, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(UserError, match="more follow"):
        read_idx(path)
    assert asked == [4, 12, 9]


def test_cut_and_foreign_idx_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    write_idx(np.frombuffer(os.urandom(5000), np.uint8), path)
    for content in (path.read_bytes()[:-2000], path.read_bytes()[:5], b"no gzip"):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_idx(path)
        one_line(caught, path, "get the file again")
    with pytest.raises(UserError):
        read_idx(tmp_path / "none.gz")


@ANY_BYTES
@given(content=st.binary(max_size=100) | st.binary(max_size=40).map(b"\0\0\x08\1\0\0\0".__add__))
def test_arbitrary_bytes_as_idx_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.gz"
    for packed in (content, gzip.compress(content)):
        path.write_bytes(packed)
        try:
            assert read_idx(path).dtype == np.uint8
        except UserError as error:
            assert "\n" not in str(error)


# ---------------------------------------------------------------- CIFAR batches

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(12) % 10


@pytest.mark.parametrize("dump", [python2_pickle, functools.partial(pickle.dumps, protocol=2)])
def test_batches_of_python_2_and_3_are_read(dump: Any) -> None:
    content = dump(cifar_batch(IMAGES, LABELS, "training batch 1 of 5"))
    images, labels = read_cifar_batch(content, "a")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_our_batches_have_the_opcodes_of_the_published_ones() -> None:
    content = python2_pickle(cifar_batch(IMAGES, LABELS, "training batch 1 of 5"))
    assert content.startswith(b"\x80\x02}")
    assert b"U\x0bbatch_label" in content and b"U\x04data" in content
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content
    assert pickle.loads(content, encoding="bytes").keys() == {
        b"batch_label", b"labels", b"data", b"filenames"
    }  # fmt: skip


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__])
def test_a_batch_that_runs_something_is_refused_and_runs_nothing(
    tmp_path: Path, function: Any
) -> None:
    mark = tmp_path / "ran"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    content = pickle.dumps({b"data": _Runs(function, code)}, protocol=2)
    with pytest.raises(UserError) as caught:
        read_cifar_batch(content, "a.tar.gz: member b")
    one_line(caught, "a.tar.gz: member b", "refused", function.__name__)
    assert not mark.exists()


def test_even_numpy_is_not_called() -> None:
    for function in (np.load, np.fromfile, np.frombuffer):
        content = pickle.dumps({b"data": _Runs(function, "a")}, protocol=2)
        with pytest.raises(UserError, match="refused"):
            read_cifar_batch(content, "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({b"data": IMAGES.reshape(12, -1)[:, :-1].copy()}, "not (N, 3072)"),
        ({b"data": IMAGES.reshape(12, -1).astype(np.int16)}, "not (N, 3072)"),
        ({b"data": IMAGES.reshape(12, -1)[:11]}, "each of 11 images"),
        ({b"data": np.asfortranarray(IMAGES.reshape(12, -1))}, "not (N, 3072)"),
        ({b"data": np.array([None] * 12)}, "not (N, 3072)"),
        ({b"data": IMAGES.tobytes()}, "'bytes' object"),
        ({b"labels": [0] * 11}, "each of 12 images"),
        ({b"labels": [0] * 11 + [10]}, "labels from 0 to 9"),
        ({b"labels": [0] * 11 + [-1]}, "labels from 0 to 9"),
        ({b"labels": [0] * 11 + [0.5]}, "one whole number"),
        ({b"labels": [0] * 11 + [None]}, "one whole number"),
        ({b"labels": [0] * 11 + [2**70]}, "one whole number"),
        ({b"labels": b"0" * 12}, "one whole number"),
        ({b"data": IMAGES.reshape(12, -1)[:0], b"labels": []}, "no CIFAR-10 batch"),
    ],
)
def test_batches_with_other_content_are_refused(change: dict[bytes, Any], words: str) -> None:
    batch = cifar_batch(IMAGES, LABELS, "testing batch 1 of 1") | change
    with pytest.raises(UserError) as caught:
        read_cifar_batch(pickle.dumps(batch, protocol=2), "a.tar.gz: member b")
    one_line(caught, "a.tar.gz: member b: no CIFAR-10 batch", words, "get the file again")


def test_cut_batches_are_refused() -> None:
    content = python2_pickle(cifar_batch(IMAGES, LABELS, "testing batch 1 of 1"))
    for cut in (0, 1, 20, len(content) // 2, len(content) - 1):
        with pytest.raises(UserError):
            read_cifar_batch(content[:cut], "a")


def test_a_memo_larger_than_the_file_is_refused() -> None:
    for put in (b"r" + (10**6).to_bytes(4, "little"), b"p1000000\n"):
        with pytest.raises(UserError) as caught:
            read_cifar_batch(b"\x80\x02]" + put + b".", "a")
        one_line(caught, "a: no CIFAR-10 batch", "its memo has no place 1000000")


@ANY_BYTES
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_as_batch_are_refused(content: bytes) -> None:
    for pickled in (content, b"\x80\x02" + content):
        with pytest.raises(UserError):
            read_cifar_batch(pickled, "a")
