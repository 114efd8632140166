"""The mending of nnabla's CUDA extension changes the masks it is about, and nothing else."""

import hashlib
import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.runs import ROOT

MASK, MENDED_MASK = 0x0FFFFFFF, 0xFFFFFFFF
MOV, AND = 0x802, 0x812


@pytest.fixture
def repair() -> ModuleType:
    """`.ci/repair_cuda.py`."""
    spec = importlib.util.spec_from_file_location("repair_cuda", ROOT / ".ci" / "repair_cuda.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def instruction(code: int, number: int) -> bytes:
    return struct.pack("<IIQ", 0x4000 | code, number, 7)


CODE = instruction(MOV, MASK) + instruction(MOV, 3) + instruction(AND, MASK)


def elf(code: bytes, data: bytes) -> bytes:
    """An ELF file with a section of code and one of data."""
    content = bytearray(64) + code + data
    struct.pack_into("<Q", content, 0x28, len(content))
    struct.pack_into("<H", content, 0x3C, 2)
    for flags, offset, part in ((6, 64, code), (2, 64 + len(code), data)):
        content += struct.pack("<IIQQQQ", 0, 1, flags, 0, offset, len(part)).ljust(64, b"\0")
    return bytes(content)


def entry(kind: int, architecture: int, content: bytes, compressed: int = 0) -> bytes:
    header = struct.pack("<HHIQI", kind, 1, 64, len(content), compressed)
    return header.ljust(28, b"\0") + struct.pack("<I", architecture).ljust(36, b"\0") + content


def library(*entries: bytes) -> bytearray:
    """Something else, and two containers: the same entries in each."""
    content = b"".join(entries)
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content
    return bytearray(b"something else" + container + b"between" + container)


def test_only_the_masks_in_code_for_that_capability_change(repair: ModuleType) -> None:
    kept = (
        entry(2, 80, elf(CODE, CODE)),
        entry(1, 90, b"mask 0xfffffff" + instruction(MOV, MASK)),
        entry(2, 90, elf(CODE, CODE), compressed=5),
    )
    content = library(*kept, entry(2, 90, elf(CODE, CODE)))
    right = instruction(MOV, MENDED_MASK) + CODE[16:]
    assert repair.mend(content) == 2
    assert content == library(*kept, entry(2, 90, elf(right, CODE)))


@pytest.fixture
def installed(repair: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that counts as that of the package."""
    content = library(entry(2, 90, elf(CODE, b"")))
    file = tmp_path / "libnnabla_cuda-120_8.so"
    file.write_bytes(content)
    file.chmod(0o755)
    monkeypatch.setattr(repair, "PACKAGED", hashlib.sha256(content).hexdigest())
    repair.mend(content)
    monkeypatch.setattr(repair, "MENDED", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(repair, "find_library", lambda: file)
    return file


def test_library_is_mended_once(
    repair: ModuleType, installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repair.main()
    assert capsys.readouterr().out == (
        f"{installed}: 2 masks mended, for GPUs of compute capability 9.0\n"
    )
    assert hashlib.sha256(installed.read_bytes()).hexdigest() == repair.MENDED
    assert installed.stat().st_mode & 0o777 == 0o755
    assert list(installed.parent.iterdir()) == [installed]
    repair.main()
    assert capsys.readouterr().out == f"{installed}: mended already\n"


def test_another_library_is_left_as_it_is(repair: ModuleType, installed: Path) -> None:
    installed.write_bytes(b"of another version")
    with pytest.raises(SystemExit, match="is not that of nnabla-ext-cuda120"):
        repair.main()
    assert installed.read_bytes() == b"of another version"


def test_nothing_is_installed(repair: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "find_library", lambda: None)
    with pytest.raises(SystemExit, match="is not installed"):
        repair.main()


def test_extension_is_looked_for_where_python_finds_it(
    repair: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nnabla_ext" / "cuda"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "libnnabla_cuda-120_8.so").touch()
    monkeypatch.setattr("nnabla_ext.__path__", [str(tmp_path / "nnabla_ext")])
    assert repair.find_library() == folder / "libnnabla_cuda-120_8.so"
