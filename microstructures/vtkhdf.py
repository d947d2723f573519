"""Microstructures as VTKHDF image data, the HDF5 layout that ParaView and pyvista open.

Layout: cells are voxels; `VTKHDF/CellData/phase` holds the labels, every channel stands beside it;
spacing is in micrometres; numbers of the process are field data, and so is the flag
`extrapolated` of a generated structure. What VTK has no place for (names,
flags, the process, what each channel was) is a JSON text in `mesoforge/about`, outside the group
that VTK reads. A 2-D image is one voxel thick. HDF5 stores `[z, y, x, component]`.
Reference: https://docs.vtk.org/en/latest/vtk_file_formats/vtkhdf_file_format
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped
from pydantic import BaseModel, ConfigDict, ValidationError

from microstructures.errors import DataError
from microstructures.publishing import publish
from microstructures.structure import GeneratedMicrostructure, Microstructure

if TYPE_CHECKING:
    import h5py

VERSION = (2, 2)
PHASE, EXTRAPOLATED = "phase", "extrapolated"
MANDEL_NAMES = ("strain", "stress")
# Row-major tensor component (11, 12, 13, 21, ...) taken from Mandel (11, 22, 33, 23, 13, 12).
TENSOR_FROM_MANDEL = [0, 5, 4, 5, 1, 3, 4, 3, 2]
MANDEL_FROM_TENSOR = {3: [0, 4, 8, 5, 2, 1], 2: [0, 4, 1]}
STORED = {2: "c x y -> 1 y x c", 3: "c x y z -> z y x c"}
IN_MEMORY = {2: "1 y x c -> c x y", 3: "z y x c -> c x y z"}


class ChannelRecord(BaseModel):
    """How a channel stood in memory before it was written as VTK cell data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                   "float16", "float32", "float64"]  # fmt: skip
    components: tuple[int, ...]
    notation: Literal["plain", "mandel"]


class AboutRecord(BaseModel):
    """What VTK has no place for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    axes: Literal[2, 3]
    periodic: tuple[bool, ...]
    phase_names: tuple[str, ...]
    process: dict[str, float | int | str | None]
    channels: dict[str, ChannelRecord]
    extrapolated: bool | None = None  # of a generated structure: its process is out of domain


def write_vtkhdf(microstructure: Microstructure, path: str | Path) -> Path:
    """Write a microstructure with all channels as a file that ParaView and pyvista open.

    A channel named after strain or stress with Mandel components (3 in 2-D, 6 in 3-D) is stored as
    the full tensor with true shear components, 9 numbers per voxel in float64; the components that
    a 2-D image does not know (13, 23, 33) are 0 there. Two components in 2-D become a vector with
    a third component 0. `read_microstructure` gives everything back: equal, except that Mandel
    shear in float64 may differ in the last place.

    >>> write_vtkhdf(microstructure, "design.vtkhdf")  # doctest: +SKIP

    Raises:
        DataError: Another suffix, a channel that VTK cannot hold (complex, text, not finite, a name
            with "/"), or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".vtkhdf":
        raise DataError(f"expected a path that ends in .vtkhdf, got {path}; ParaView goes by it")
    image = _encode(microstructure)
    return publish(path, lambda partial: _write(partial, image))


def _write(partial: Path, image: bytes) -> None:
    partial.write_bytes(image)


def _encode(microstructure: Microstructure) -> bytes:
    # In memory first: HDF5 crashes the process when the disk is full.
    import h5py

    about = _about(microstructure)
    with h5py.File("microstructure", "w", driver="core", backing_store=False) as file:
        group = file.create_group("VTKHDF")
        _write_grid(group, microstructure)
        cells = group.create_group("CellData")
        cells[PHASE] = _to_cells(microstructure.phases[None], scalar=True)
        for name, record in about.channels.items():
            cells[name] = channel_to_cells(microstructure.channels[name], record)
        fields = group.create_group("FieldData")
        for name, value in about.process.items():
            if isinstance(value, (int, float)) and _is_plain_name(name):
                fields[name] = np.array([value], dtype=np.float64)
        if about.extrapolated is not None and EXTRAPOLATED not in fields:
            fields[EXTRAPOLATED] = np.array([about.extrapolated], dtype=np.uint8)
        unsaid = {EXTRAPOLATED} if about.extrapolated is None else None
        text = json.dumps(about.model_dump(mode="json", exclude=unsaid), allow_nan=False)
        file.create_group("mesoforge")["about"] = np.bytes_(text)
        file.flush()
        return file.id.get_file_image()


def _write_grid(group: "h5py.Group", microstructure: Microstructure) -> None:
    cells = (*microstructure.shape, 1)[:3]
    group.attrs["Version"] = np.array(VERSION, dtype=np.int64)
    group.attrs["Type"] = np.bytes_("ImageData")
    extent = [bound for n in cells for bound in (0, n)]
    group.attrs["WholeExtent"] = np.array(extent, dtype=np.int64)
    group.attrs["Origin"] = np.zeros(3)
    group.attrs["Spacing"] = np.full(3, float(microstructure.voxel_size_um))
    group.attrs["Direction"] = np.eye(3).ravel()


def _about(microstructure: Microstructure) -> AboutRecord:
    channels = {
        name: _channel_record(name, channel, len(microstructure.shape))
        for name, channel in microstructure.channels.items()
    }
    process = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in microstructure.process.items()
    }
    generated = isinstance(microstructure, GeneratedMicrostructure)
    try:
        return AboutRecord(
            axes=len(microstructure.shape),  # pyright: ignore[reportArgumentType]
            periodic=microstructure.periodic,
            phase_names=microstructure.phase_names,
            process=process,
            channels=channels,
            extrapolated=microstructure.extrapolated if generated else None,
        )
    except ValidationError as error:
        raise DataError(
            f"expected finite numbers, text or None in the process, got {process}; mend the value"
        ) from error


def _channel_record(name: str, channel: np.ndarray, axes: int) -> ChannelRecord:
    if not _is_plain_name(name) or name == PHASE:
        raise DataError(
            f"expected a channel name without '/', not '.' and not {PHASE!r}, got {name!r}; rename "
            "the channel"
        )
    if channel.dtype.kind not in "buif" or channel.dtype.itemsize > 8 or channel.size == 0:
        raise DataError(
            f"expected channel {name!r} to hold integers or floats, got {channel.dtype} of shape "
            f"{channel.shape}; convert it or leave it out"
        )
    if not np.isfinite(channel).all():
        raise DataError(f"expected finite values in channel {name!r}, found NaN or infinity")
    components = channel.shape[: channel.ndim - axes]
    is_mandel = (
        components == ({2: 3, 3: 6}[axes],)
        and channel.dtype.kind == "f"
        and any(word in name.lower() for word in MANDEL_NAMES)
    )
    return ChannelRecord(
        dtype=channel.dtype.name,  # pyright: ignore[reportArgumentType]
        components=components,
        notation="mandel" if is_mandel else "plain",
    )


def _is_plain_name(name: str) -> bool:
    return bool(name) and name != "." and not set(name) & {"/", "\0"}


def channel_to_cells(
    channel: Shaped[np.ndarray, "..."], record: ChannelRecord
) -> Shaped[np.ndarray, "..."]:
    """Return a channel `(*component, *space)` as VTK cell data `(z, y, x, component)`."""
    space = channel.shape[len(record.components) :]
    flat = channel.reshape(-1, *space)
    if record.notation == "mandel":
        flat = mandel_to_tensor(flat)
    elif record.dtype in ("bool", "float16"):  # types that VTK has not
        flat = flat.astype(np.uint8 if record.dtype == "bool" else np.float32)
    if len(space) == 2 and record.components == (2,):
        flat = np.concatenate([flat, np.zeros_like(flat[:1])])
    return _to_cells(flat, scalar=record.components == ())


def cells_to_channel(
    cells: Shaped[np.ndarray, "..."], record: ChannelRecord, axes: int
) -> Shaped[np.ndarray, "..."]:
    """Return VTK cell data `(z, y, x, component)` as the channel that the record describes.

    Raises:
        DataError: The number of components does not fit the record.
    """
    channel = from_cells(cells, axes)
    count = math.prod(record.components)
    padded = {"mandel": 9, "plain": 3 if (axes, record.components) == (2, (2,)) else count}
    if len(channel) != padded[record.notation]:
        raise DataError(
            f"expected {padded[record.notation]} components for a {record.notation} channel, found "
            f"{len(channel)}; the file was altered"
        )
    if record.notation == "mandel":
        channel = tensor_to_mandel(channel)
    channel = channel[:count].reshape(*record.components, *channel.shape[1:])
    return channel.astype(record.dtype, copy=False)


def mandel_to_tensor(mandel: Float[np.ndarray, "n *space"]) -> Float[np.ndarray, "9 *space"]:
    """Return the 9 true components, row by row, of Mandel (11, 22, √2·12) or its 3-D form."""
    full = mandel.astype(np.float64)
    if len(mandel) == 3:
        zero = np.zeros_like(full[0])
        full = np.stack([full[0], full[1], zero, zero, zero, full[2]])
    full[3:] /= math.sqrt(2)
    return full[TENSOR_FROM_MANDEL]


def tensor_to_mandel(tensor: Float[np.ndarray, "9 *space"]) -> Float[np.ndarray, "n *space"]:
    """Return Mandel components, 3 for two axes of space and 6 for three."""
    axes = tensor.ndim - 1
    mandel = tensor[MANDEL_FROM_TENSOR[axes]]
    mandel[axes:] *= math.sqrt(2)
    return mandel


def from_cells(cells: Shaped[np.ndarray, "z y x c"], axes: int) -> Shaped[np.ndarray, "c *space"]:
    """Return cell data with the component first and axis 0 along direction 1."""
    return rearrange(cells, IN_MEMORY[axes])


def _to_cells(
    flat: Shaped[np.ndarray, "c *space"], *, scalar: bool
) -> Shaped[np.ndarray, "z y x *c"]:
    stored = rearrange(flat, STORED[flat.ndim - 1])
    stored = stored[..., 0] if scalar else stored
    return np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
