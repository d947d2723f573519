"""Label maps as PNG pictures: columns are direction 1, rows direction 2, row 0 is y = 0.

So `phases[x, y] = picture[y, x]`: the picture is transposed and never flipped; direction 2 points
down the picture. Stored grey values or palette indices are the labels.
"""

import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from einops import rearrange

from microstructures.errors import DataError
from microstructures.limits import ReadingLimits, check_inflated
from microstructures.publishing import publish
from microstructures.structure import Microstructure
from microstructures.tiff_stack import encode_tiff

GREY, PALETTE = 0, 3


def read_png(path: Path, limits: ReadingLimits) -> np.ndarray:
    """Return the stored values of a one-channel PNG, shape `(x, y)`.

    Raises:
        DataError: Several channels or frames, or more pixels than the limits allow.
    """
    from PIL import Image

    chunks = list(_chunks(path.read_bytes()))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise DataError("expected a PNG header, found none; the file is cut short or damaged")
    header = chunks[0][1]
    columns, rows = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, color, interlaced = header[8], header[9], header[12]
    if color not in (GREY, PALETTE):
        raise DataError(
            "expected a label map with one channel, got a colour picture or one with transparency; "
            "save the labels as grey values or palette indices"
        )
    limits.check_space((columns, rows))
    limits.check_ratio(columns * rows * (2 if depth == 16 else 1), path.stat().st_size)
    if interlaced:
        raise DataError("expected a PNG without interlacing, got an interlaced one; save it plain")
    # Pillow would fill missing rows with label 0.
    pixels = b"".join(content for kind, content in chunks if kind == b"IDAT")
    check_inflated(pixels, rows * (1 + math.ceil(columns * depth / 8)))
    with Image.open(path, formats=["PNG"]) as picture:
        if getattr(picture, "n_frames", 1) != 1:
            raise DataError("expected one picture, got an animation; save one frame")
        stored = np.array(picture)
    if color == GREY and depth in (2, 4):
        stored = stored // (255 // (2**depth - 1))  # Pillow stretches these depths to 0..255
    return rearrange(stored, "y x -> x y")


def write_picture(microstructure: Microstructure, path: str | Path) -> Path:
    """Write the labels as a picture whose grey values are the labels; inverse of reading.

    A PNG holds a 2-D image, a TIFF a 2-D image or a stack of one page per z. Voxel size, process,
    names and channels are not kept: `write_vtkhdf` keeps all.

    >>> write_picture(microstructure, "design.png")  # doctest: +SKIP

    Raises:
        DataError: Another suffix, a 3-D image as PNG, or the file cannot be written.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".png":
            content = _encode_png(microstructure.phases)
        case ".tif" | ".tiff":
            content = encode_tiff(microstructure.phases)
        case suffix:
            raise DataError(f"expected a .png, .tif or .tiff picture, got {suffix!r} in {path}")
    return publish(path, lambda partial: _write(partial, content))


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each PNG chunk; a chunk that fails its own checksum is refused."""
    at = 8
    while at < len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        body, checksum = file[at + 4 : at + 8 + length], file[at + 8 + length : at + 12 + length]
        if len(checksum) != 4 or zlib.crc32(body) != int.from_bytes(checksum, "big"):
            raise DataError(
                "expected PNG chunks that match their checksums, found one that does not; the file "
                "is cut short or damaged, make it again"
            )
        yield body[:4], body[4:]
        at += 12 + length


def _write(partial: Path, content: bytes) -> None:
    partial.write_bytes(content)


def _encode_png(phases: np.ndarray) -> bytes:
    from PIL import Image

    if phases.ndim != 2:
        raise DataError(
            f"expected a 2-D image for a PNG, got shape {phases.shape}; write a .tif stack"
        )
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(phases.T)).save(stream, format="PNG")
    return stream.getvalue()
