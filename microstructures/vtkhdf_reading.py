"""Reading VTKHDF image data, our own and simple files of others, through the HDF5 guard."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from microstructures.errors import DataError
from microstructures.hdf5_guard import (
    check_chunks,
    open_group,
    open_numbers,
    read_attribute,
    read_text,
)
from microstructures.limits import ReadingLimits
from microstructures.numpy_files import choose_array
from microstructures.vtkhdf import PHASE, AboutRecord, ChannelRecord, cells_to_channel, from_cells

if TYPE_CHECKING:
    import h5py


def read_vtkhdf(
    path: Path, limits: ReadingLimits, key: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the stored labels `(*space)` and the other arguments of `Microstructure`.

    `extrapolated` is among them when the file holds a generated structure.

    In a file of ours the labels are `CellData/phase`. In a file of others they are the array named
    `key`, or "phase", or the only one, in the cell data or, without cell data, in the point data;
    the other arrays become channels. Spacing is taken as micrometres.

    Raises:
        DataError: Not image data, unequal spacing or turned axes, arrays that do not fit the
            extent, or anything the guard refuses.
    """
    import h5py

    with h5py.File(path, "r") as file:
        group = open_group(file, "VTKHDF")
        _check_kind(group)
        about = _read_about(file)
        arrays, shape = _open_arrays(group, limits)
        axes = about.axes if about else (2 if shape[0] == 1 else 3)
        name = choose_array(list(arrays), PHASE if key is None and PHASE in arrays else key)
        declared = sum(array.size * array.dtype.itemsize for array in arrays.values())
        limits.check_ratio(declared, path.stat().st_size)
        cells = {name: _read_cells(array) for name, array in arrays.items()}
        voxel_size_um = _voxel_size(group, axes)
    if axes == 2 and shape[0] != 1:
        raise DataError(f"expected one layer of voxels for a 2-D image, found {shape[0]}")
    labels = from_cells(cells.pop(name), axes)
    if len(labels) != 1:
        raise DataError(f"expected one component in {name!r}, found {len(labels)}; choose another")
    arguments = {
        "voxel_size_um": voxel_size_um,
        "channels": _channels(cells, about, axes),
    }
    if about:
        arguments |= {
            "periodic": about.periodic,
            "process": about.process,
            "phase_names": about.phase_names,
        }
        if about.extrapolated is not None:
            arguments["extrapolated"] = about.extrapolated
    return labels[0], arguments


def _check_kind(group: "h5py.Group") -> None:
    version = read_attribute(group, "Version", 2)
    kind = read_attribute(group, "Type", 0)
    if kind != "ImageData" or version[0] not in (1, 2) or "Steps" in group:
        steps = " with time steps" if "Steps" in group else ""
        raise DataError(
            f"expected VTKHDF ImageData of version 1 or 2 without time steps, got {kind!r} of "
            f"version {version}{steps}; resample it to one image"
        )
    if "Direction" in group.attrs and read_attribute(group, "Direction", 9) != [
        1, 0, 0, 0, 1, 0, 0, 0, 1
    ]:  # fmt: skip
        raise DataError("expected an image along the axes, its Direction turns it; resample it")


def _read_about(file: "h5py.File") -> AboutRecord | None:
    if "mesoforge" not in file:
        return None
    text = read_text(open_group(file, "mesoforge"), "about")
    try:
        return AboutRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"expected mesoforge/about of format 1, at {where or 'its start'}: {first['msg']}; the "
            "file was altered or comes from a newer mesoforge"
        ) from error


def _open_arrays(
    group: "h5py.Group", limits: ReadingLimits
) -> tuple[dict[str, "h5py.Dataset"], tuple[int, int, int]]:
    """Return the unread arrays and the number of cells (z, y, x) that all of them have."""
    extent = read_attribute(group, "WholeExtent", 6)
    points = "CellData" not in group or not len(open_group(group, "CellData"))
    x, y, z = (
        max(int(high - low) + points, 1)
        for low, high in zip(extent[::2], extent[1::2], strict=True)
    )
    shape = (z, y, x)
    limits.check_space(shape)
    where = open_group(group, "PointData" if points else "CellData")
    arrays = {str(name): open_numbers(where, str(name)) for name in where}
    for name, array in arrays.items():
        if array.shape[:3] != shape or array.ndim > 4:
            raise DataError(
                f"expected {name!r} to start with shape {shape} as WholeExtent says, got "
                f"{array.shape}; the file is damaged"
            )
    return arrays, shape


def _read_cells(array: "h5py.Dataset") -> np.ndarray:
    check_chunks(array)
    values = array[...]
    if not np.isfinite(values).all():
        raise DataError(f"expected finite values in {array.name}, found NaN or infinity")
    return values.reshape(*values.shape[:3], -1)


def _voxel_size(group: "h5py.Group", axes: int) -> float:
    spacing = read_attribute(group, "Spacing", 3)[:axes]
    if not all(math.isfinite(s) and math.isclose(s, spacing[0], rel_tol=1e-6) for s in spacing):
        raise DataError(
            f"expected square or cubic voxels, got spacing {spacing}; resample the image to equal "
            "spacing"
        )
    return spacing[0]


def _channels(
    cells: dict[str, np.ndarray], about: AboutRecord | None, axes: int
) -> dict[str, np.ndarray]:
    if about is None:
        return {name: _foreign_channel(values, axes) for name, values in cells.items()}
    if set(about.channels) != set(cells):
        odd = ", ".join(sorted(set(about.channels) ^ set(cells)))
        raise DataError(
            f"expected the channels that mesoforge/about lists, missing or extra: {odd}; the file "
            "was altered, write it again"
        )
    return {
        name: cells_to_channel(cells[name], record, axes) for name, record in about.channels.items()
    }


def _foreign_channel(values: np.ndarray, axes: int) -> np.ndarray:
    components = () if values.shape[-1] == 1 else (values.shape[-1],)
    record = ChannelRecord(dtype=values.dtype.name, components=components, notation="plain")  # pyright: ignore[reportArgumentType]
    channel = from_cells(values, axes)
    return channel.reshape(*record.components, *channel.shape[1:])
