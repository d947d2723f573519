"""Real label maps and a table of their processes become a dataset of crops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from microstructures.cropping import crop_origins, resample_labels
from microstructures.dataset import DatasetBuilder, MicrostructureDataset
from microstructures.errors import DataError
from microstructures.micrographs import GREY, coarse_micrograph, read_micrograph
from microstructures.process_table import MapRow, TableSettings, read_process_table
from microstructures.publishing import sha256
from microstructures.structure import Microstructure

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".vtkhdf")
MAPS_PER_SHARD = 8
_IGNORED = 255


class ImportSettings(TableSettings):
    """How label maps become samples; the same fields feed YAML and the `import` verb."""

    values: dict[int, int] = Field(
        {}, description="stored value to label; several may share one; without it value = label"
    )
    ignore_values: tuple[int, ...] = Field((), description="stored values that mean no label")
    phase_names: tuple[str, ...] = Field((), description="one name per label")
    expected_shape: tuple[PositiveInt, ...] | None = Field(
        None, description="voxels that every map must have, for a picture (columns, rows)"
    )
    resample_to_um: PositiveFloat | None = Field(None, description="voxel edge of the samples")
    crop: PositiveInt | None = Field(None, description="voxels per side; whole maps without it")
    stride: PositiveInt | None = Field(
        None, description="voxels between crops; without it `crop`, or 1 with crops_per_map"
    )
    crops_per_map: PositiveInt | None = Field(None, description="draw at most so many of a map")
    periodic: bool = Field(False, description="the maps repeat; only with whole maps")
    micrographs: str | None = Field(
        None,
        description="folder of 8-bit grey micrographs with the maps' names, as seen from the "
        "folder of maps and outside it; they become the channel grey",
    )
    seed: int = Field(0, description="seed of the drawn crops")

    @model_validator(mode="after")
    def _fit_together(self) -> "ImportSettings":
        labels = sorted(set(self.values.values()))
        if labels and labels != list(range(len(labels))):
            raise ValueError(f"expected the labels in values to be 0, 1, ... without gap, {labels}")
        if labels and self.phase_names and len(labels) != len(self.phase_names):
            raise ValueError(f"expected {len(labels)} phase_names, one per label")
        if len(labels) > _IGNORED or len(self.phase_names) > _IGNORED:
            raise ValueError("expected at most 255 labels")
        if set(self.values) & set(self.ignore_values):
            raise ValueError("expected no value both in values and in ignore_values")
        if self.crop is None and (self.stride or self.crops_per_map):
            raise ValueError("expected crop with stride or crops_per_map")
        if self.periodic and self.crop is not None:
            raise ValueError("expected periodic only without crop: a crop is not periodic")
        if self.periodic and self.resample_to_um:
            raise ValueError("expected periodic only without resample_to_um")
        return self


def import_maps(
    folder: str | Path,
    table: str | Path,
    settings: ImportSettings,
    out: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[MicrostructureDataset, MicrostructureDataset | None]:
    """Return the dataset made from a folder of label maps, and the one left out of training.

    `out` is always the dataset to train on. With `settings.leave_out`, the samples of those
    processes form a second dataset beside it, `OUT-left-out`, which appears first, so that both
    are complete once `out` exists. Repeating an interrupted import makes only what lacks.

    Args:
        folder: Holds the maps (PNG, TIFF, NPY, NPZ, VTKHDF), in subfolders if you like.
        table: CSV with one row per map.
        settings: How to read both.
        out: The dataset's folder.
        progress: Called with (maps done, maps in total).

    >>> settings = load_settings("configs/uhcs-import.yaml", ImportSettings)  # doctest: +SKIP
    >>> data, left_out = import_maps(
    ...     "uhcs", "uhcs/metadata.csv", settings, "crops"
    ... )  # doctest: +SKIP

    Raises:
        DataError: One sentence that names the file and what is wrong with it; then nothing was
            written under a final name.
    """
    folder, out = Path(folder), Path(out)
    space, rows = read_process_table(table, settings, files=maps_in(folder))
    _check_voxel_sizes(rows, settings)
    if not settings.values and not settings.phase_names:
        settings = _with_found_labels(folder, rows, settings)
    about = {
        "import": settings.model_dump(mode="json"),
        "table_sha256": sha256(Path(table)),
        "maps_sha256": {row.file: sha256(folder / row.file) for row in rows},
    }
    if settings.micrographs is not None:
        pictures = {row.file: _micrograph_of(folder, row, settings.micrographs) for row in rows}
        about["micrographs_sha256"] = {file: sha256(path) for file, path in pictures.items()}
    left_out = [row for row in rows if row.left_out]
    training = [row for row in rows if not row.left_out]
    parts = [("left out", out.with_name(f"{out.name}-left-out"), left_out)] if left_out else []
    parts.append(("training", out, training))
    builders: list[DatasetBuilder] = []
    try:
        done = 0
        for part, target, chosen in parts:
            builders.append(DatasetBuilder(target, space, about={**about, "part": part}))
            _fill(builders[-1], folder, chosen, settings, _after(done, len(rows), progress))
            done += len(chosen)
    except DataError:
        for builder in builders:
            builder.discard()
        raise
    datasets = [builder.finish() for builder in builders]
    return datasets[-1], datasets[0] if left_out else None


def maps_in(folder: Path) -> set[str]:
    """Return the label maps in a folder and below, as paths inside it; hidden ones do not count.

    Raises:
        DataError: There is no such folder, or no map in it.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder of label maps at {folder}, found none; check the path")
    maps = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in MAP_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not maps:
        raise DataError(f"expected label maps ({', '.join(MAP_SUFFIXES)}) in {folder}, found none")
    return maps


def _check_voxel_sizes(rows: list[MapRow], settings: ImportSettings) -> None:
    sizes = {row.voxel_size_um for row in rows if row.voxel_size_um is not None}
    if len(sizes) > 1 and settings.resample_to_um is None:
        raise DataError(
            f"expected one voxel size, the table has {min(sizes):g} to {max(sizes):g} um; give "
            "resample_to_um"
        )


def _with_found_labels(
    folder: Path, rows: list[MapRow], settings: ImportSettings
) -> ImportSettings:
    from microstructures.reading import read_microstructure

    found: set[int] = set()
    for row in rows:
        found |= set(np.unique(read_microstructure(folder / row.file).phases).tolist())
    labels = sorted(found - set(settings.ignore_values))
    if labels != list(range(len(labels))):
        raise DataError(
            f"expected the labels 0, 1, ... in the maps of {folder}, found "
            f"{', '.join(map(str, labels))}; say with values which label each means, as in "
            "{0: 0, 255: 1}, or list them in ignore_values"
        )
    if len(labels) < 2:
        raise DataError(
            f"expected at least two labels in the maps of {folder}, found only {labels[0]}; if "
            "that is what they hold, name it in phase_names"
        )
    return settings.model_copy(update={"phase_names": tuple(f"phase {k}" for k in labels)})


def _after(
    earlier: int, total: int, progress: Callable[[int, int], None] | None
) -> Callable[[int], None]:
    def report(done: int) -> None:
        if progress is not None:
            progress(earlier + done, total)

    return report


def _fill(
    builder: DatasetBuilder,
    folder: Path,
    rows: list[MapRow],
    settings: ImportSettings,
    report: Callable[[int], None],
) -> None:
    missing = builder.missing(-(-len(rows) // MAPS_PER_SHARD))
    first_map: tuple[str, tuple[int, ...]] | None = None
    for first in range(0, len(rows), MAPS_PER_SHARD):
        chosen = rows[first : first + MAPS_PER_SHARD]
        if first // MAPS_PER_SHARD in missing:
            samples: list[tuple[Microstructure, MapRow]] = []
            for k, row in enumerate(chosen):
                found = _samples(folder, row, settings)
                first_map = first_map or (row.file, found[0].shape)
                _check_same_shape(row.file, found[0].shape, first_map)
                samples += [(sample, row) for sample in found]
                report(first + k + 1)
            builder.add(
                first // MAPS_PER_SHARD,
                [sample for sample, _ in samples],
                [row.specimen for _, row in samples],
                sources=[row.file for _, row in samples],
            )
        report(first + len(chosen))


def _check_same_shape(
    file: str, shape: tuple[int, ...], first: tuple[str, tuple[int, ...]]
) -> None:
    if shape != first[1]:
        size, wanted = (" x ".join(map(str, s)) for s in (shape, first[1]))
        raise DataError(
            f"{file}: expected samples of {wanted} voxels as of {first[0]}, got {size}; give crop "
            "to cut all maps to one size, or exclude the map"
        )


def _samples(folder: Path, row: MapRow, settings: ImportSettings) -> list[Microstructure]:
    labels, voxel_size_um = _labels(folder / row.file, row.voxel_size_um, settings)
    names = settings.phase_names or tuple(f"phase {k}" for k in set(settings.values.values()))
    ignored = labels == _IGNORED
    channels: dict[str, np.ndarray] = {}
    if settings.micrographs is not None:
        picture = _micrograph_of(folder, row, settings.micrographs)
        channels[GREY] = read_micrograph(picture, shape=labels.shape)
    if settings.resample_to_um is not None:
        factor = settings.resample_to_um / voxel_size_um
        channels = {k: coarse_micrograph(grey, factor=factor) for k, grey in channels.items()}
        labels, ignored = resample_labels(labels, ignored, factor=factor, n_phases=len(names))
        voxel_size_um = settings.resample_to_um
    origins, shape = _windows(labels, ignored, row, settings)
    windows = [
        tuple(slice(o, o + n) for o, n in zip(origin, shape, strict=True)) for origin in origins
    ]
    return [
        Microstructure(
            labels[window],
            voxel_size_um=voxel_size_um,
            periodic=(settings.periodic,),
            process=row.process,
            phase_names=names,
            channels={name: channel[window] for name, channel in channels.items()},
        )
        for window in windows
    ]


def _micrograph_of(folder: Path, row: MapRow, micrographs: str) -> Path:
    """Return the path of the micrograph that has the map's name.

    Raises:
        DataError: There is none.
    """
    path = folder / micrographs / row.file
    if not path.is_file():
        raise DataError(
            f"expected a micrograph of the map {row.file} at {path}, found none; add it, exclude "
            "the map, or mend micrographs"
        )
    return path


def _labels(
    path: Path, voxel_size_um: float | None, settings: ImportSettings
) -> tuple[np.ndarray, float]:
    """Return labels with 255 where ignored, and the voxel edge in micrometres."""
    from microstructures.reading import read_microstructure

    meaning = settings.values or {k: k for k in range(len(settings.phase_names))}
    stored = (*meaning, *settings.ignore_values)
    structure = read_microstructure(path, voxel_size_um=voxel_size_um, values=stored)
    if settings.expected_shape not in (None, structure.shape):
        raise DataError(
            f"{path}: expected a map of {settings.expected_shape} voxels, got {structure.shape}"
        )
    table = np.array([*meaning.values(), *[_IGNORED] * len(settings.ignore_values)], np.uint8)
    return table[structure.phases], float(structure.voxel_size_um)


def _windows(
    labels: np.ndarray, ignored: np.ndarray, row: MapRow, settings: ImportSettings
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    crop = settings.crop
    if crop is None:
        if ignored.any() or labels.size == 0:
            raise DataError(
                f"{row.file}: expected a whole map without ignored voxels, it has "
                f"{int(ignored.sum())}; give crop"
            )
        return [(0,) * labels.ndim], labels.shape
    size = " x ".join(map(str, labels.shape))
    if min(labels.shape) < crop:
        raise DataError(
            f"{row.file}: expected a map of at least {crop} voxels along each axis, got {size}; "
            "use a smaller crop or exclude the map"
        )
    origins = crop_origins(
        ignored,
        crop=crop,
        stride=settings.stride or (1 if settings.crops_per_map else crop),
        count=settings.crops_per_map,
        seed=(settings.seed, "crops", row.file),
    )
    if not origins:
        raise DataError(
            f"{row.file}: expected a crop of {crop} voxels without ignored ones in {size} voxels, "
            "found none; use a smaller crop or stride, or exclude the map"
        )
    return origins, (crop,) * labels.ndim
