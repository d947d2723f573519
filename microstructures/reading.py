"""The only door for files made by others: PNG, TIFF, NPY, NPZ and VTKHDF label maps.

The format is told by the first bytes, never by the name; size, type and links are checked from the
header before anything is decoded; whatever a library raises leaves here as one `DataError`.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from microstructures.errors import DataError
from microstructures.limits import ReadingLimits
from microstructures.numpy_files import read_npy, read_npz
from microstructures.structure import GeneratedMicrostructure, Microstructure

HIGHEST_LABEL = 255
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x93NUMPY": "NPY",
    b"PK\x03\x04": "NPZ",
    b"\x89HDF\r\n\x1a\n": "VTKHDF",
}


def read_microstructure(
    path: str | Path,
    *,
    voxel_size_um: float | int | None = None,
    periodic: bool | tuple[bool, ...] | None = None,
    max_voxels: int = 1024**3,
    trust: bool = False,
    key: str | None = None,
    values: Sequence[int | float] | None = None,
) -> Microstructure:
    """Read a label map made by this or any other program.

    Pictures (PNG, TIFF): columns are direction 1, rows direction 2 (row 0 is y = 0, not flipped),
    TIFF pages direction 3, so `phases[x, y, z] = page[z][y, x]`. NPY and NPZ arrays are taken as
    stored: axis 0 is direction 1. VTKHDF files bring their own voxel size, and ours also process,
    names and channels; a generated structure comes back as a `GeneratedMicrostructure`.

    Args:
        path: The file.
        voxel_size_um: Voxel edge in micrometres; None: what a VTKHDF file says, else 1.
        periodic: One flag, or one per axis; None: what our own VTKHDF file says, else True.
        max_voxels: Files that declare more voxels are refused before decoding.
        trust: Accept more than 64 MiB declared at more than 500 times the stored size.
        key: Which array of an NPZ or VTKHDF file holds the labels.
        values: Stored values of label 0, 1, ... in that order, for example (0, 255) for a black and
            white mask. None: the stored values are the labels, from 0 to 255 (255 included: a mask
            of 0 and 255 without `values` has 256 phases).

    >>> read_microstructure("map.png", voxel_size_um=0.2, values=(0, 255))  # doctest: +SKIP

    Raises:
        DataError: The file is missing, damaged, hostile or too large, is not a label map, or holds
            values that are not labels; the message begins with the path.
    """
    path = Path(path)
    limits = ReadingLimits(max_voxels, trust)
    try:
        stored, arguments = _decode(path, limits, key)
        labels = _labels(stored) if values is None else _mapped(stored, values)
        if values is not None and len(arguments.get("phase_names", ())) != len(values):
            arguments["phase_names"] = tuple(f"phase {i}" for i in range(len(values)))
        if voxel_size_um is not None:
            arguments["voxel_size_um"] = voxel_size_um
        if periodic is not None:
            arguments["periodic"] = (periodic,) if isinstance(periodic, bool) else tuple(periodic)
        kind = GeneratedMicrostructure if "extrapolated" in arguments else Microstructure
        return kind(labels, **arguments)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__


def _decode(
    path: Path, limits: ReadingLimits, key: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    kind = _format(path)
    if key is not None and kind not in ("NPZ", "VTKHDF"):
        raise DataError(f"expected key only with an NPZ or VTKHDF file, got {key!r} with a {kind}")
    try:
        with _quiet_libraries():
            return _read(path, kind, limits, key)
    except DataError:
        raise
    except Exception as error:  # the libraries raise anything from OSError to AssertionError
        first = (str(error).strip() or "no message").splitlines()[0][:200]
        raise DataError(
            f"expected a readable {kind} file, decoding stopped with {type(error).__name__} "
            f"({first}); the file is damaged or of an unusual kind, write it again"
        ) from error


def _read(
    path: Path, kind: str, limits: ReadingLimits, key: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    # The picture and HDF5 modules are imported here to keep `import microstructures` light.
    match kind:
        case "PNG":
            from microstructures.pictures import read_png

            return read_png(path, limits), {}
        case "TIFF":
            from microstructures.tiff_stack import read_tiff

            return read_tiff(path, limits), {}
        case "NPY":
            return read_npy(path, limits), {}
        case "NPZ":
            return read_npz(path, limits, key), {}
        case _:
            from microstructures.vtkhdf_reading import read_vtkhdf

            return read_vtkhdf(path, limits, key)


def _format(path: Path) -> str:
    if not path.is_file():
        found = "a folder or device" if path.exists() else "nothing"
        raise DataError(f"expected a file of labels, found {found} there; check the path")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise DataError(f"expected a readable file, got {error.strerror}") from error
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            return kind
    raise DataError(
        f"expected a PNG, TIFF, NPY, NPZ or VTKHDF file, it begins with {start!r}; convert it to "
        "one of these without loss (JPEG blurs labels)"
    )


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep decoders from warning and logging about files that are refused or checked anyway."""
    tiff_log = logging.getLogger("tifffile")
    was_disabled, tiff_log.disabled = tiff_log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tiff_log.disabled = was_disabled


def _labels(stored: np.ndarray) -> np.ndarray:
    """Return stored values as labels if they are whole numbers from 0 to 255."""
    if stored.dtype in (np.bool_, np.uint8):
        return stored.astype(np.uint8, copy=False)
    whole = stored.dtype.kind != "f" or (stored == np.rint(stored)).all()
    if not whole or not (stored.min() >= 0 and stored.max() <= HIGHEST_LABEL):
        raise DataError(
            f"expected whole labels from 0 to {HIGHEST_LABEL}, found {_listed(stored)}; give the "
            "stored value of each phase in order, for example values=(0, 1000)"
        )
    return stored.astype(np.uint8)


def _mapped(stored: np.ndarray, values: Sequence[int | float]) -> np.ndarray:
    """Return label i where the stored value is `values[i]`."""
    if not 1 <= len(values) <= HIGHEST_LABEL + 1 or len(set(values)) != len(values):
        raise DataError(f"expected 1 to 256 distinct values, got {tuple(values)}")
    labels = np.zeros(stored.shape, dtype=np.uint8)
    known = np.zeros(stored.shape, dtype=bool)
    for label, value in enumerate(values):
        here = stored == value
        labels[here] = label
        known |= here
    if not known.all():
        raise DataError(
            f"unknown labels {_listed(stored[~known])}: expected only {tuple(values)}; add them to "
            "values or mend the map"
        )
    return labels


def _listed(stored: np.ndarray) -> str:
    found = np.unique(stored)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return ", ".join(str(value.item()) for value in found[:8]) + more
