"""Mends nnabla's CUDA extension 1.39.0 in this environment for the GPUs H100 and H200.

    python -m utils.training.repair_cuda

nnabla's sums, means and the like pass a wrong mask of a warp's threads: 0x0fffffff in the place of
0xffffffff (warp_shuffle.cuh). GPUs of compute capability 9.0 then stop with "an illegal instruction
was encountered". This program corrects the 3,746 instructions for 9.0 that load the mask, and
changes nothing else. It does so only if the library's SHA-256 is that of the package.
`make venv-cuda` runs it.

Delete it when nnabla has mended the mask.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from utils.errors import UserError
from utils.output.storage import written_beside

PACKAGED = "3832520805cf51b47ccab17783ba3a7b803006b21223c2c9590942af4d082fa7"
"""SHA-256 of libnnabla_cuda-120_8.so in nnabla-ext-cuda120 1.39.0."""
MENDED = "8f797dd9d5f4ea9dbf1e2383deedcad40090879ac1ac91f549d208a259174455"
WRONG, RIGHT = 0x0FFFFFFF, 0xFFFFFFFF

# A fat binary: a header of 16 bytes, then the code for each architecture behind its own header.
CONTAINER = struct.pack("<IHH", 0xBA55ED50, 1, 16)
CUBIN, CAPABILITY = 2, 90
MOVES = {0x802, 0x424, 0x882}
"""The low 12 bits of MOV, IMAD.MOV and UMOV, whose bytes 4 to 7 are the number that is loaded."""
EXECUTABLE, INSTRUCTION = 4, 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Mend the library of this Python, and say what was done; exit status 2 where it cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    try:
        print(mend_installed(find_library()))
    except UserError as error:
        print(f"repair_cuda: error: {error}", file=sys.stderr)
        sys.exit(2)


def mend_installed(library: Path | None) -> str:
    """Mend a library in its place; returns what was done.

    Raises:
        UserError: there is none, it is not that of the package, or it cannot be replaced.
    """
    if library is None:
        raise UserError(
            "nnabla-ext-cuda120 is not installed, so there is nothing to mend; for an NVIDIA GPU "
            "install it by make venv-cuda"
        )
    content = bytearray(library.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    if digest == MENDED:
        return f"{library}: mended already"
    n = mend(content) if digest == PACKAGED else 0
    if hashlib.sha256(content).hexdigest() != MENDED:
        raise UserError(f"{library} is not that of nnabla-ext-cuda120 1.39.0: left as it is")
    replace(library, content)
    return f"{library}: {n:,} masks mended, for GPUs of compute capability 9.0"


def find_library() -> Path | None:
    """The compiled library of nnabla's extension."""
    spec = find_spec("nnabla_ext.cuda") if find_spec("nnabla_ext") else None
    folders = (spec and spec.submodule_search_locations) or ()
    return next((file for place in folders for file in Path(place).glob("libnnabla_*.so")), None)


def mend(library: bytearray) -> int:
    """Correct the masks in place; returns how many."""
    return sum(
        mend_code(library, start + offset, size)
        for start in cubins(library)
        for offset, size in executable_sections(library, start)
    )


def cubins(library: bytearray) -> Iterator[int]:
    """Where each ELF file with code for the capability begins.

    Compressed ones are passed over: none in this release holds a mask.
    """
    at = library.find(CONTAINER)
    while at >= 0:
        (size,) = struct.unpack_from("<Q", library, at + 8)
        entry, end = at + 16, at + 16 + size
        while entry < end:
            kind, _, header, length, compressed = struct.unpack_from("<HHIQI", library, entry)
            (architecture,) = struct.unpack_from("<I", library, entry + 28)
            if (kind, architecture, compressed) == (CUBIN, CAPABILITY, 0):
                yield entry + header
            entry += header + length
        at = library.find(CONTAINER, end)


def executable_sections(library: bytearray, start: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each section with instructions of the ELF file that begins at `start`."""
    (table,) = struct.unpack_from("<Q", library, start + 0x28)
    (n,) = struct.unpack_from("<H", library, start + 0x3C)
    for k in range(n):
        _, _, flags, _, offset, size = struct.unpack_from(
            "<IIQQQQ", library, start + table + 64 * k
        )
        if flags & EXECUTABLE:
            yield offset, size


def mend_code(library: bytearray, start: int, size: int) -> int:
    """Correct the masks among the instructions of one section; returns how many."""
    n = 0
    for at in range(start, start + size, INSTRUCTION):
        code, number = struct.unpack_from("<II", library, at)
        if number == WRONG and code & 0xFFF in MOVES:
            struct.pack_into("<I", library, at + 4, RIGHT)
            n += 1
    return n


def replace(library: Path, content: bytearray) -> None:
    """Put the content in the library's place, whole or not at all."""
    try:
        with written_beside(library) as new:
            new.write_bytes(content)
            new.chmod(library.stat().st_mode)
    except OSError as error:
        raise UserError(
            f"{library}: cannot be replaced ({error.strerror}); run this as the user who installed "
            "it, with 500 MB free"
        ) from error


if __name__ == "__main__":
    main()
