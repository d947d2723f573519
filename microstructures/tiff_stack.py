"""Label maps as TIFF: one page is a 2-D image, several pages a stack along direction 3.

Columns are direction 1, rows direction 2, pages direction 3, none flipped:
`phases[x, y, z] = page[z][y, x]`. Pages are taken one by one; descriptions inside the file (ImageJ,
OME and others) may not redefine the shape, and other files are never opened.
"""

import io
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from microstructures.errors import DataError
from microstructures.limits import ReadingLimits, check_inflated, check_number

if TYPE_CHECKING:
    import tifffile

UNCOMPRESSED = 1
DEFLATE = (8, 32946)
LOSSLESS = (UNCOMPRESSED, 5, 32773, *DEFLATE)  # 5 LZW (needs imagecodecs), 32773 PackBits
INDEXED = (0, 1, 3)  # white is zero, black is zero, palette: the stored values are the labels


def read_tiff(path: Path, limits: ReadingLimits) -> np.ndarray:
    """Return the stored values of a TIFF, shape `(x, y)` or `(x, y, z)`.

    Raises:
        DataError: Several channels, pages of unequal shape or type, lossy compression, pixel data
            that are not those the header declares, or more voxels than the limits allow.
    """
    import tifffile

    with tifffile.TiffFile(path, is_ome=False, _multifile=False) as tiff:
        pages = [_plain(page) for page in tiff.pages]
        if not pages:
            raise DataError("expected a TIFF of at least one page, found none; it is damaged")
        first = pages[0]
        _check_pages(pages, tiff)
        limits.check_space((*first.shape, len(pages)))
        declared = len(pages) * first.nbytes
        limits.check_ratio(declared, path.stat().st_size)
        for page in pages:
            _check_segments(page, path.stat().st_size)
        stack = np.stack([page.asarray(maxworkers=1) for page in pages])
    return (
        rearrange(stack[0], "y x -> x y") if len(stack) == 1 else rearrange(stack, "z y x -> x y z")
    )


def encode_tiff(phases: np.ndarray) -> bytes:
    """Return an uncompressed TIFF of labels `(x, y)` or `(x, y, z)`, the inverse of reading."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, np.ascontiguousarray(phases.T), photometric="minisblack")
    return stream.getvalue()


def _plain(page: "tifffile.TiffPage | tifffile.TiffFrame") -> "tifffile.TiffPage":
    import tifffile

    if not isinstance(page, tifffile.TiffPage) or page.dtype is None:
        raise DataError("expected pages with a full header, found one without")
    if page.samplesperpixel != 1 or page.photometric not in INDEXED or len(page.shape) != 2:
        raise DataError(
            f"expected label maps with one channel, got a page of shape {page.shape} with "
            f"{page.samplesperpixel} samples per pixel; save the labels as grey values"
        )
    if page.compression not in LOSSLESS:
        raise DataError(
            f"expected a TIFF without loss (uncompressed, deflate, LZW or PackBits), got "
            f"compression {int(page.compression)}; save it uncompressed"
        )
    check_number(page.dtype)
    return page


def _check_pages(pages: "list[tifffile.TiffPage]", tiff: "tifffile.TiffFile") -> None:
    kinds = {(page.shape, str(page.dtype)) for page in pages}
    if len(kinds) > 1:
        listed = ", ".join(f"{shape} of {dtype}" for shape, dtype in sorted(kinds)[:3])
        raise DataError(
            f"expected pages of one shape and type, found {listed}; remove thumbnails or previews"
        )
    if _next_page(pages[-1], tiff):
        raise DataError(
            f"expected the list of pages to end after page {len(pages)}, it goes on where none can "
            "be read; the file is damaged"
        )
    described = sum(math.prod(series.shape) for series in tiff.series)
    held = len(pages) * math.prod(pages[0].shape)
    if described != held:
        raise DataError(
            f"expected pages for the {described} voxels that the file describes, found pages for "
            f"{held}; save it again as a plain stack with one page per slice"
        )


def _next_page(page: "tifffile.TiffPage", tiff: "tifffile.TiffFile") -> int:
    """Return where the file says that the page after this one starts; 0 for none."""
    layout = tiff.tiff
    tiff.filehandle.seek(page.offset)
    count = struct.unpack(layout.tagnoformat, tiff.filehandle.read(layout.tagnosize))[0]
    tiff.filehandle.seek(page.offset + layout.tagnosize + count * layout.tagsize)
    return struct.unpack(layout.offsetformat, tiff.filehandle.read(layout.offsetsize))[0]


def _check_segments(page: "tifffile.TiffPage", file_size: int) -> None:
    """Compare the strips or tiles with what shape and type ask for, before any is decoded."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) != math.prod(page.chunked) or len(counts) != len(offsets):
        raise DataError(
            f"expected {math.prod(page.chunked)} strips for a page of shape {page.shape}, found "
            f"{len(offsets)} offsets and {len(counts)} sizes; the file is damaged"
        )
    if any(at <= 0 or n <= 0 or at + n > file_size for at, n in zip(offsets, counts, strict=True)):
        raise DataError("expected all pixel data inside the file; it is cut short or damaged")
    for index, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        expected = _segment_bytes(page, index)
        if page.compression == UNCOMPRESSED and count != expected:
            raise DataError(
                f"expected {expected} bytes in strip {index} of a page of shape {page.shape}, its "
                f"header gives {count}; the file is damaged"
            )
        if page.compression in DEFLATE:
            page.parent.filehandle.seek(offset)
            check_inflated(page.parent.filehandle.read(count), expected)


def _segment_bytes(page: "tifffile.TiffPage", index: int) -> int:
    rows, columns = page.chunks
    if not page.is_tiled:
        rows = min(rows, page.shape[0] - index * rows)
    return rows * math.ceil(columns * page.bitspersample / 8)
