"""Pictures as data URIs, small enough to be part of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable

from PIL import Image

from utils.data.decode import picture_of

LARGEST_EXACT, LARGEST = 64, 128
"""Pictures with a longer side up to the first are kept; larger ones get the second, in px."""
THUMBNAIL = 96
"""Longer side of thumbnails, of which a page has hundreds, in px."""


def data_uris(files: Iterable[str]) -> dict[str, str]:
    """A data URI for each image file; an empty text where it is missing or broken."""
    return {file: _uri(file) for file in dict.fromkeys(files)}


def thumbnail_uri(file: str) -> str:
    """A data URI of at most `THUMBNAIL` px a side; an empty text where the file cannot be read."""
    return _uri(file, _small)


def _uri(file: str, encoded: Callable[[Image.Image], tuple[str, bytes]] | None = None) -> str:
    try:
        picture = picture_of(file, LARGEST)
    except Exception:  # a broken file may raise anything in a decoder
        return ""
    kind, content = (encoded or _encoded)(picture)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _small(picture: Image.Image) -> tuple[str, bytes]:
    """As JPEG, or as PNG where that is smaller."""
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    both = {"jpeg": io.BytesIO(), "png": io.BytesIO()}
    picture.save(both["jpeg"], "JPEG", quality=80, optimize=True)
    if max(picture.size) <= LARGEST_EXACT // 2:
        picture.save(both["png"], "PNG", optimize=True)
    written = {kind: stream.getvalue() for kind, stream in both.items() if stream.getvalue()}
    return min(written.items(), key=lambda item: len(item[1]))


def _encoded(picture: Image.Image) -> tuple[str, bytes]:
    """Small pictures as PNG, exact; larger ones as JPEG of at most `LARGEST` px a side."""
    stream = io.BytesIO()
    if max(picture.size) <= LARGEST_EXACT:
        picture.save(stream, "PNG", optimize=True)
        return "png", stream.getvalue()
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    picture.save(stream, "JPEG", quality=85)
    return "jpeg", stream.getvalue()
