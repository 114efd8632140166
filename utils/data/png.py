"""The chunks of a PNG file: its pixels without metadata that may be damaged."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"tRNS", b"eXIf")
"""Ancillary chunks that change how an image looks: transparency, and which side is up."""


class Chunk(NamedTuple):
    """One chunk: its name, its data, whether its checksum fits, and all of its bytes."""

    kind: bytes
    data: bytes
    intact: bool
    whole: bytes


def chunks_of(content: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG file up to its end; ValueError if it is no PNG file or is cut short."""
    if not content.startswith(SIGNATURE):
        raise ValueError("no PNG file")
    start, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if start + 12 > len(content):
            raise ValueError("cut short")
        (length,) = struct.unpack_from(">I", content, start)
        kind, end = content[start + 4 : start + 8], start + 12 + length
        if end > len(content):
            raise ValueError("cut short")
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        intact = zlib.crc32(content[start + 4 : end - 4]) == checksum
        yield Chunk(kind, content[start + 8 : end - 4], intact, content[start:end])
        start = end


def without_metadata(content: bytes) -> bytes | None:
    """A PNG file of the same pixels without its other chunks; None if it is not a whole PNG file.

    Critical chunks stay as they are, damaged or not: they hold the pixels.
    """
    try:
        chunks = list(chunks_of(content))
    except ValueError:
        return None
    kept = [c.whole for c in chunks if _is_critical(c.kind) or (c.kind in KEPT and c.intact)]
    return SIGNATURE + b"".join(kept)


def compressed_pixels(content: bytes) -> bytes:
    """The content of the IDAT chunks; ValueError as `chunks_of`."""
    return b"".join(chunk.data for chunk in chunks_of(content) if chunk.kind == b"IDAT")


def _is_critical(kind: bytes) -> bool:
    return not kind[0] & 0x20
