"""Label arrays in NPY and NPZ files, axes as stored (axis 0 is direction 1)."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from microstructures.errors import DataError
from microstructures.limits import ReadingLimits, check_number


def read_npy(path: Path, limits: ReadingLimits) -> np.ndarray:
    """Return the array of an NPY file.

    Raises:
        DataError: Not a plain number array, too large, or cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        _check_header(stream, size, size, limits)
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def read_npz(path: Path, limits: ReadingLimits, key: str | None) -> np.ndarray:
    """Return one array of an NPZ archive: the one named `key`, or the only one.

    Raises:
        DataError: No such array, several without a key, not a plain number array, too large.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        member = members[choose_array(sorted(members), key)]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"expected an archive as numpy.savez writes it, got compression method "
                f"{member.compress_type}; save it again with numpy"
            )
        with archive.open(member) as stream:
            stored = min(member.compress_size, path.stat().st_size)
            _check_header(stream, member.file_size, stored, limits)
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def choose_array(names: list[str], key: str | None) -> str:
    """Return `key` if it is among the names, or the only name.

    Raises:
        DataError: The key is not there, or is needed.
    """
    listed = ", ".join(names[:12]) or "none"
    if key is not None and key not in names:
        raise DataError(
            f"expected an array named {key!r}, found {listed}; give one of these as key"
        )
    if key is None and len(names) != 1:
        raise DataError(f"expected one array, found {len(names)} ({listed}); choose one with key=")
    return names[0] if key is None else key


def _check_header(
    stream: IO[bytes] | io.BufferedIOBase, size: int, stored: int, limits: ReadingLimits
) -> None:
    version = np.lib.format.read_magic(stream)
    match version:
        case (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        case (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        case _:
            raise DataError(f"expected NPY version 1.0 or 2.0, got {version}; save it with numpy")
    check_number(dtype)
    limits.check_space(shape)
    declared = math.prod(shape) * dtype.itemsize
    if declared != size - stream.tell():
        raise DataError(
            f"expected {declared} bytes for shape {shape} of {dtype}, found "
            f"{size - stream.tell()}; the file is cut short or damaged"
        )
    limits.check_ratio(declared, stored)
