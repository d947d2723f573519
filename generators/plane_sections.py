"""Plane sections of volumes: which axes they hold, and what they fix of a volume."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from microstructures import DataError, Microstructure
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for

AXES = 3


def plane_axes(normal: int) -> list[int]:
    """Return the axes of a section normal to an axis, in the order in which it holds them."""
    return [axis for axis in range(AXES) if axis != normal]


def all_sections(
    x: Shaped[Tensor, "batch channel x y z"], normal: int
) -> Shaped[Tensor, "section channel u v"]:
    """Return all sections normal to an axis, those of the first volume first."""
    return x.movedim(2 + normal, 1).flatten(0, 1)


def section_dataset(
    volumes: MicrostructureDataset, *, seed: int, normals: Sequence[int] = (0, 1, 2)
) -> MicrostructureDataset:
    """Return a section of every volume normal to each axis of `normals`, at random places.

    Labels only; a section has the process of its volume and names it as its specimen.
    """
    sections, specimens = [], []
    for k in range(len(volumes)):
        volume = volumes[k]
        generator = generator_for(seed, "section", k)
        for normal in normals:
            at = int(torch.randint(volume.shape[normal], (1,), generator=generator))
            sections.append(_section(volume, normal, at))
            specimens.append(volumes.specimens[k])
    return MicrostructureDataset.from_structures(sections, volumes.space, specimens=specimens)


def _section(volume: Microstructure, normal: int, at: int) -> Microstructure:
    plane = plane_axes(normal)
    return Microstructure(
        phases=np.ascontiguousarray(volume.phases.take(at, normal)),
        voxel_size_um=volume.voxel_size_um,
        periodic=tuple(volume.periodic[axis] for axis in plane),
        process=volume.process,
        phase_names=volume.phase_names,
    )


def volume_periodicity(planes: Sequence[Sequence[bool]]) -> list[bool]:
    """Return one flag per axis of the volume; each axis lies in two of the sections.

    Args:
        planes: The flags of one kind of section, or of sections normal to axis 0, 1 and 2.

    Raises:
        DataError: Sections disagree on an axis.
    """
    return [bool(flag) for flag in _agreed(planes, "which axes are periodic")]


def volume_shape(planes: Sequence[Sequence[int]]) -> list[int]:
    """Return the sides in voxels of the volume whose sections have these sides.

    Arguments and errors as for `volume_periodicity`.
    """
    return _agreed(planes, "the length of every axis")


def _agreed(planes: Sequence[Sequence[int]], what: str) -> list[int]:
    if len(planes) not in (1, AXES) or any(len(plane) != AXES - 1 for plane in planes):
        raise DataError(
            f"expected one kind of plane section, or three (normal to axis 0, 1, 2), got "
            f"{[tuple(plane) for plane in planes]}"
        )
    found: list[set[int]] = [set(), set(), set()]
    for normal, plane in enumerate(list(planes) * (AXES // len(planes))):
        for axis, value in zip(plane_axes(normal), plane, strict=True):
            found[axis].add(value)
    if any(len(values) > 1 for values in found):
        raise DataError(
            f"expected sections that agree on {what}, got {[tuple(plane) for plane in planes]}"
        )
    return [values.pop() for values in found]
