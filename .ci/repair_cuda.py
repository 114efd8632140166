"""Mends nnabla's CUDA extension 1.39.0 in this environment for the GPUs H100 and H200.

    python .ci/repair_cuda.py

Its sums, means and the like name 28 of the 32 threads of a warp as taking part: the mask in the
extension's warp_shuffle.cuh is 0x0fffffff, which lacks an f. Older GPUs pass over it; those of
compute capability 9.0 end in "an illegal instruction was encountered". This program writes
0xffffffff into the 3,746 instructions for 9.0 that load the mask, and changes nothing else. It does
so only if the library's SHA-256 is that of the package. `make venv-cuda` runs it.

Delete it when nnabla has mended the mask.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

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


def main() -> None:
    """Mend the library of this Python, and say what was done."""
    library = find_library()
    if library is None:
        sys.exit("nnabla-ext-cuda120 is not installed: there is nothing to mend")
    content = bytearray(library.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    if digest == MENDED:
        print(f"{library}: mended already")
        return
    if digest != PACKAGED:
        sys.exit(f"{library} is not that of nnabla-ext-cuda120 1.39.0: left as it is")
    n = mend(content)
    replace(library, content)
    print(f"{library}: {n:,} masks mended, for GPUs of compute capability 9.0")


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
    """Where each ELF file with code for the capability begins; no compressed one holds a mask."""
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
    with tempfile.NamedTemporaryFile(dir=library.parent, delete=False) as new:
        new.write(content)
    os.chmod(new.name, library.stat().st_mode)
    os.replace(new.name, library)


if __name__ == "__main__":
    main()
