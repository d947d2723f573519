"""Plane sections of measured volumes, cut into crops: what a generator of volumes learns from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from microstructures.cropping import crop_origins
from microstructures.dataset import DatasetBuilder, MicrostructureDataset
from microstructures.errors import DataError
from microstructures.process_space import ProcessSpace
from microstructures.publishing import sha256
from microstructures.reading import read_microstructure
from microstructures.structure import Microstructure


class SectionSettings(BaseModel):
    """How a volume, or one micrograph, becomes crops of sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    values: tuple[int, ...] = Field(
        (), description="stored values of label 0, 1, ...; empty: as stored"
    )
    phase_names: tuple[str, ...] = Field((), description="one name per label")
    key: str | None = Field(None, description="array of an NPZ file that holds the labels")
    voxel_size_um: PositiveFloat | None = Field(
        None, description="voxel edge in um; what the file says, else 1"
    )
    low: tuple[int, ...] = Field((), description="first voxel of the part that is used, per axis")
    high: tuple[int, ...] = Field((), description="end of the part that is used, per axis")
    normals: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="axes that sections of a volume stand on"
    )
    spacing: PositiveInt = Field(8, description="voxels from a section to the next parallel one")
    crop: PositiveInt = Field(64, description="voxels per side of a crop")
    stride: PositiveInt | None = Field(None, description="voxels between crops; `crop` without it")

    @model_validator(mode="after")
    def _fit_together(self) -> "SectionSettings":
        if len(set(self.normals)) < len(self.normals) or not set(self.normals) <= {0, 1, 2}:
            raise ValueError("expected normals among 0, 1 and 2, each once")
        if self.values and self.phase_names and len(self.values) != len(self.phase_names):
            raise ValueError(f"expected {len(self.values)} phase_names, one per value")
        return self


def import_sections(
    path: str | Path, settings: SectionSettings, out: str | Path
) -> MicrostructureDataset:
    """Return the data set of crops of a volume's sections, saved in `out`.

    The crops are not periodic and have no process: the space is empty, and a model trained on
    them is asked with `{}`. The two axes of a section keep their order. Each section is its own
    specimen. Of one picture, the picture is the section.

    >>> import_sections("rock.tif", SectionSettings(values=(255, 0)), "crops")  # doctest: +SKIP

    Raises:
        DataError: The file is no label map, or no crop fits into the part that is used.
    """
    path = Path(path)
    about = {"sections": settings.model_dump(mode="json"), "file_sha256": sha256(path)}
    volume = read_part(path, settings)
    flat = volume.phases.ndim == 2
    normals: tuple[int | None, ...] = (None,) if flat else settings.normals
    builder = DatasetBuilder(out, ProcessSpace([]), about=about)
    try:
        missing = builder.missing(len(normals))
        for shard, normal in enumerate(normals):
            if shard in missing:
                found = list(section_crops(volume, normal, settings))
                names = [name for name, _ in found]
                builder.add(shard, [c for _, c in found], names, sources=[path.name] * len(names))
    except DataError:
        builder.discard()
        raise
    return builder.finish()


def section_crops(
    volume: Microstructure, normal: int | None, settings: SectionSettings
) -> Iterator[tuple[str, Microstructure]]:
    """Yield the name of a section and a crop of it, section by section.

    Args:
        volume: Labels `(x, y, z)`, or `(x, y)` with no normal.
        normal: Axis that the sections stand on.
        settings: Spacing of sections, size and stride of crops.

    Raises:
        DataError: The crop is larger than a section.
    """
    count = 1 if normal is None else volume.phases.shape[normal]
    for position in range(0, count, settings.spacing):
        section = volume.phases if normal is None else volume.phases.take(position, normal)
        name = "section" if normal is None else f"normal {normal} at {position}"
        for corner in _corners(section, settings, name):
            window = tuple(slice(start, start + settings.crop) for start in corner)
            yield (
                name,
                Microstructure(
                    section[window].copy(),
                    voxel_size_um=volume.voxel_size_um,
                    periodic=(False, False),
                    phase_names=volume.phase_names,
                ),
            )


def _corners(section: np.ndarray, settings: SectionSettings, name: str) -> list[tuple[int, ...]]:
    if min(section.shape) < settings.crop:
        raise DataError(
            f"expected sections of at least {settings.crop} voxels a side, got {section.shape} "
            f"({name}); lower crop, use more of the volume, or leave out this normal"
        )
    unused = np.zeros(section.shape, bool)
    return crop_origins(unused, crop=settings.crop, stride=settings.stride or settings.crop)


def read_part(path: str | Path, settings: SectionSettings) -> Microstructure:
    """Return the part of a volume, or of a picture, whose sections are used.

    Raises:
        DataError: The file is no label map, or `low`, `high` or `phase_names` do not fit it.
    """
    whole = read_microstructure(
        path,
        voxel_size_um=settings.voxel_size_um,
        periodic=False,
        key=settings.key,
        values=settings.values or None,
    )
    shape = whole.phases.shape
    low, high = settings.low or (0,) * len(shape), settings.high or shape
    if (
        len(low) != len(shape)
        or len(high) != len(shape)
        or any(not 0 <= a < b <= n for a, b, n in zip(low, high, shape, strict=True))
    ):
        raise DataError(
            f"{path}: expected low and high of {len(shape)} axes within {shape}, got {low} and "
            f"{high}"
        )
    names = settings.phase_names or whole.phase_names
    if len(names) < whole.n_phases:
        raise DataError(f"{path}: expected {whole.n_phases} phase_names, got {len(names)}")
    part = whole.phases[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Microstructure(
        part, voxel_size_um=whole.voxel_size_um, periodic=(False,), phase_names=names
    )
