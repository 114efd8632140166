"""Finding and downloading published files, and holding them against their sums."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests

from tests.helpers.errors import one_line
from utils.data.downloads import ArchiveFile, find_or_download
from utils.data.source import first_writable, writable
from utils.errors import UserError

CONTENT = b"the published content"


def archive_file(*urls: str) -> ArchiveFile:
    return ArchiveFile("a.gz", hashlib.md5(CONTENT).hexdigest(), urls)


# ---------------------------------------------------------------- finding


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    result = tmp_path / "data", tmp_path / "cache"
    for folder in result:
        folder.mkdir()
    return result


def test_data_dir_goes_before_cache(folders: tuple[Path, Path]) -> None:
    data, cache = folders
    (cache / "a.gz").write_bytes(CONTENT)
    assert find_or_download([archive_file()], data, cache, False) == [cache / "a.gz"]
    (data / "a.gz").write_bytes(CONTENT)
    assert find_or_download([archive_file()], data, cache, False) == [data / "a.gz"]


def test_another_md5_is_refused(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.gz").write_bytes(b"other")
    with pytest.raises(UserError) as caught:
        find_or_download([archive_file()], *folders, False)
    one_line(caught, folders[0] / "a.gz", "MD5", "--allow_unverified_data")


@pytest.mark.parametrize("problem", ["empty", "unreadable"])
def test_a_file_without_a_sum_is_one_line(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = folders[0] / "a.gz"
    path.write_bytes(b"" if problem == "empty" else CONTENT)
    if problem == "unreadable":
        monkeypatch.setattr(pooch, "file_hash", refuse)
    with pytest.raises(UserError) as caught:
        find_or_download([archive_file()], *folders, False)
    words = {"empty": "the file is empty", "unreadable": "Permission denied"}
    one_line(caught, path, words[problem], "make the file readable")


def test_another_md5_can_be_allowed_with_one_warning(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.gz", "b.gz"):
        (folders[0] / name).write_bytes(b"other")
    files = [archive_file(), ArchiveFile("b.gz", "0" * 32, ())]
    with caplog.at_level(logging.WARNING, "data_cleansing"):
        paths = find_or_download(files, *folders, True)
    assert paths == [folders[0] / "a.gz", folders[0] / "b.gz"]
    assert len(caplog.records) == 1
    assert all(str(path) in caplog.text for path in paths)


def test_nothing_is_said_of_published_files(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    (folders[0] / "a.gz").write_bytes(CONTENT)
    find_or_download([archive_file()], *folders, True)
    assert not caplog.records


def test_writable_looks_at_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "new" / "folder")
    assert not writable(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert not writable(tmp_path / "new" / "folder")
    with pytest.raises(UserError, match="cannot be written"):
        first_writable([tmp_path])


# ---------------------------------------------------------------- downloading


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a server on this machine gives its files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_next_mirror_is_tried(
    folders: tuple[Path, Path],
    mirror: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    printed: list[Any] = []
    pooch.get_logger().setLevel(logging.INFO)
    monkeypatch.setattr(pooch.get_logger(), "handle", printed.append)
    folder, address = mirror
    (folder / "a.gz").write_bytes(CONTENT)
    (folder / "wrong.gz").write_bytes(b"a page that says sorry")
    file = archive_file(address + "none.gz", address + "wrong.gz", address + "a.gz")
    assert find_or_download([file], *folders, False) == [folders[0] / "a.gz"]
    assert (folders[0] / "a.gz").read_bytes() == CONTENT
    assert os.listdir(folders[0]) == ["a.gz"]
    assert not printed  # by pooch itself


def test_a_download_with_another_md5_is_refused_even_where_unverified_files_are_allowed(
    folders: tuple[Path, Path], mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (mirror[0] / "a.gz").write_bytes(b"other")
    with pytest.raises(UserError) as caught:
        find_or_download([archive_file(mirror[1] + "a.gz")], *folders, True)
    one_line(caught, "a.gz", "another MD5 sum", mirror[1])
    assert not os.listdir(folders[0])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network; the addresses that were tried."""
    tried: list[str] = []

    def fail(self: Any, url: str, output_file: str, pooch: Any) -> None:
        tried.append(url)
        Path(output_file).write_bytes(b"half")
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    return tried


def test_offline_one_line_says_what_is_missing(
    folders: tuple[Path, Path], offline: list[str]
) -> None:
    files = [
        archive_file("http://one/a.gz", "http://two/a.gz"),
        ArchiveFile("b.gz", "0" * 32, ("http://one/b.gz",)),
    ]
    with pytest.raises(UserError) as caught:
        find_or_download(files, *folders, False)
    one_line(caught, "a.gz, b.gz", "http://one/ or http://two/", f"put into {folders[0]}")
    assert offline == ["http://one/a.gz", "http://two/a.gz"]
    assert not os.listdir(folders[0])


def test_downloads_go_to_the_cache_if_data_dir_is_read_only(
    folders: tuple[Path, Path], offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folders[0])
    with pytest.raises(UserError, match=f"put into {folders[1]}"):
        find_or_download([archive_file("http://one/a.gz")], *folders, False)
