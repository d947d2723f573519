"""What a foreign file may declare before anything of it is decoded."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microstructures.errors import DataError

MAX_RATIO = 500
RATIO_COUNTS_FROM = 64 * 2**20


@dataclass(frozen=True)
class ReadingLimits:
    """Limits on what a header may declare.

    Args:
        max_voxels: Largest number of voxels of one image.
        trust: Accept files that declare more than 500 times their own size.
    """

    max_voxels: int
    trust: bool

    def check_space(self, shape: Sequence[int]) -> None:
        """Refuse an image that has not 2 or 3 axes, is empty or has too many voxels.

        Raises:
            DataError: With the declared shape.
        """
        shape = tuple(int(n) for n in shape)
        if len(shape) not in (2, 3) or any(n < 1 for n in shape):
            raise DataError(
                f"expected an image with 2 or 3 axes of at least one voxel, its header declares "
                f"shape {shape}; give one label map"
            )
        if math.prod(shape) > self.max_voxels:
            raise DataError(
                f"expected at most {self.max_voxels} voxels, the header declares shape {shape}, "
                f"that is {math.prod(shape)}; raise max_voxels if the file is sound"
            )

    def check_ratio(self, declared_bytes: int, stored_bytes: int) -> None:
        """Refuse a file that would grow suspiciously when decoded.

        Raises:
            DataError: Declared above 64 MiB and above 500 times the bytes that are stored.
        """
        if self.trust or declared_bytes <= RATIO_COUNTS_FROM:
            return
        if declared_bytes > MAX_RATIO * stored_bytes:
            raise DataError(
                f"expected at most {MAX_RATIO} declared bytes per stored byte, the header declares "
                f"{declared_bytes} bytes in {stored_bytes} stored ones; pass trust=True if you "
                "know where the file comes from"
            )


def check_number(dtype: np.dtype) -> None:
    """Refuse anything but booleans, integers and floats of at most 8 bytes.

    Raises:
        DataError: With the type that was declared.
    """
    if dtype.kind not in "buif" or dtype.itemsize > 8 or dtype.hasobject:
        raise DataError(
            f"expected an array of integers or floats, the header declares {dtype}; save the "
            "labels as unsigned integers"
        )


def check_inflated(compressed: bytes, expected: int) -> None:
    """Refuse a deflate stream whose length is not the declared one, without unpacking more of it.

    Raises:
        DataError: The stream holds fewer or more than `expected` bytes.
    """
    found = len(zlib.decompressobj().decompress(compressed, expected + 1))
    if found != expected:
        raise DataError(
            f"expected {expected} bytes in a compressed block, it unpacks to "
            f"{'more' if found > expected else found}; the file is damaged or hostile"
        )
