"""The mending of nnabla's CUDA extension changes the masks it is about, and nothing else."""

import hashlib
import struct
import sys
from pathlib import Path

import pytest

from utils.training import repair_cuda

MASK, RIGHT = 0x0FFFFFFF, 0xFFFFFFFF
MOVES, AND = (0x802, 0x424, 0x882), 0x812


def instruction(code: int, number: int) -> bytes:
    """With other bits set next to the 12 of the operation, as a predicate's."""
    return struct.pack("<IIQ", 0x4000 | code, number, 7)


def code(mask: int) -> bytes:
    others = instruction(MOVES[0], 3) + instruction(AND, MASK)
    return b"".join(instruction(move, mask) for move in MOVES) + others


CODE = code(MASK)


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


def test_only_the_masks_in_code_for_that_capability_change() -> None:
    kept = (
        entry(2, 80, elf(CODE, CODE)),
        entry(1, 90, elf(CODE, CODE)),
        entry(2, 90, elf(CODE, CODE), compressed=5),
    )
    content = library(*kept, entry(2, 90, elf(CODE, CODE)))
    assert repair_cuda.mend(content) == 2 * len(MOVES)
    assert content == library(*kept, entry(2, 90, elf(code(RIGHT), CODE)))


@pytest.fixture(autouse=True)
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is imported already is found wherever it lies."""
    monkeypatch.delitem(sys.modules, "nnabla_ext.cuda", raising=False)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that counts as that of the package, where Python finds it."""
    folder = tmp_path / "nnabla_ext" / "cuda"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr("nnabla_ext.__path__", [str(tmp_path / "nnabla_ext")])
    content = library(entry(2, 90, elf(CODE, b"")))
    file = folder / "libnnabla_cuda-120_8.so"
    file.write_bytes(content)
    file.chmod(0o755)
    monkeypatch.setattr(repair_cuda, "PACKAGED", hashlib.sha256(content).hexdigest())
    repair_cuda.mend(content)
    monkeypatch.setattr(repair_cuda, "MENDED", hashlib.sha256(content).hexdigest())
    return file


def fails(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the program ends."""
    with pytest.raises(SystemExit) as ended:
        repair_cuda.main([])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_library_is_mended_once(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repair_cuda.main([])
    assert capsys.readouterr().out == (
        f"{installed}: 6 masks mended, for GPUs of compute capability 9.0\n"
    )
    assert hashlib.sha256(installed.read_bytes()).hexdigest() == repair_cuda.MENDED
    assert installed.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in installed.parent.iterdir()} == {"__init__.py", installed.name}
    repair_cuda.main([])
    assert capsys.readouterr().out == f"{installed}: mended already\n"


def test_another_library_is_left_as_it_is(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed.write_bytes(b"of another version")
    assert "is not that of nnabla-ext-cuda120 1.39.0: left as it is" in fails(capsys)
    assert installed.read_bytes() == b"of another version"


def test_library_that_cannot_be_replaced(
    installed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = installed.read_bytes()

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "cannot be replaced (No space left on device); run this as" in fails(capsys)
    assert installed.read_bytes() == before
    assert len(list(installed.parent.iterdir())) == 2


def test_nothing_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnabla_ext.__path__", [])
    assert "is not installed, so there is nothing to mend; for an NVIDIA GPU" in fails(capsys)
