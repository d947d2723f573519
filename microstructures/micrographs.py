"""Grey micrographs beside label maps: reading, resampling, and image and mask pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from microstructures.cropping import resample_grey
from microstructures.errors import DataError
from microstructures.pictures import write_picture
from microstructures.reading import read_microstructure
from microstructures.structure import Microstructure

GREY = "grey"
"""Name of the channel that holds the micrograph of a microstructure, 8 bit."""


def read_micrograph(path: str | Path, *, shape: Sequence[int]) -> UInt8[np.ndarray, "*space"]:
    """Return the grey values of an 8-bit picture, TIFF stack or array; axis 0 is direction 1.

    It comes through the same door as label maps (`read_microstructure`), which checks the header
    before anything is decoded.

    Raises:
        DataError: The file does not read, is not 8-bit grey, or has another shape.
    """
    try:
        grey = read_microstructure(path).phases
    except DataError as error:
        raise DataError(f"expected an 8-bit grey micrograph: {error}") from error
    if grey.shape != tuple(shape):
        raise DataError(
            f"{path}: expected a micrograph of {tuple(shape)} voxels as its label map has, got "
            f"{grey.shape}"
        )
    return grey


def coarse_micrograph(
    grey: UInt8[np.ndarray, "*space"], *, factor: float
) -> UInt8[np.ndarray, "*coarse"]:
    """Return a micrograph on voxels `factor` times as wide, as `resample_labels` does labels."""
    return np.rint(resample_grey(grey, factor=factor)).clip(0, 255).astype(np.uint8)


def write_segmentation_pair(structure: Microstructure, folder: str | Path, name: str) -> list[Path]:
    """Write `image/NAME` (grey) and `label/NAME` (the labels), both 8 bit and lossless.

    PNG in 2-D, TIFF stacks in 3-D. The label's grey value is the phase.

    Raises:
        DataError: The structure has no 8-bit channel "grey", or a file cannot be written.
    """
    grey = structure.channels.get(GREY)
    if grey is None or grey.dtype != np.uint8 or grey.shape != structure.shape:
        raise DataError(
            f"expected a structure with an 8-bit channel {GREY!r}, got "
            f"{'none' if grey is None else f'{grey.dtype} of shape {grey.shape}'}; render it first"
        )
    suffix = ".png" if len(structure.shape) == 2 else ".tif"
    parts = {"image": Microstructure(grey), "label": structure}
    written = []
    for part, picture in parts.items():
        target = Path(folder) / part
        target.mkdir(parents=True, exist_ok=True)
        written.append(write_picture(picture, target / f"{name}{suffix}"))
    return written
