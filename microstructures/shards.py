"""A shard: some samples of one dataset in an HDF5 file whose bytes depend on its content alone."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microstructures.errors import CheckpointError, DataError
from microstructures.process_space import ProcessSpace
from microstructures.structure import Microstructure, ProcessValue

_CHUNK_BYTES = 2**20
# A deflate stream unpacks to at most 1032 times its length: more was never written.
_MAX_RATIO = 1100


@dataclass(frozen=True)
class Layout:
    """What all samples of one dataset share.

    Args:
        shape: Voxels along each axis.
        voxel_size_um: Voxel edge in micrometres.
        periodic: One flag per axis.
        phase_names: One name per label.
        channels: Channel name to its number type and full shape `(*component, *space)`.
    """

    shape: tuple[int, ...]
    voxel_size_um: float
    periodic: tuple[bool, ...]
    phase_names: tuple[str, ...]
    channels: Mapping[str, tuple[str, tuple[int, ...]]]

    @classmethod
    def shared_by(cls, structures: Sequence[Microstructure]) -> "Layout":
        """Return the layout of structures that all have the same.

        Raises:
            DataError: There are none, or two differ.
        """
        if not structures:
            raise DataError("expected at least one microstructure, got none")
        layouts = [cls._of(m) for m in structures]
        for k, layout in enumerate(layouts):
            layout.check_same(layouts[0], f"sample {k}")
        return layouts[0]

    @classmethod
    def _of(cls, structure: Microstructure) -> "Layout":
        channels = {}
        for name, channel in sorted(structure.channels.items()):
            if channel.dtype.kind not in "buif" or channel.dtype.itemsize > 8:
                raise DataError(
                    f"expected channel {name!r} of integers or floats, got {channel.dtype}"
                )
            channels[name] = (channel.dtype.newbyteorder("<").str, channel.shape)
        return cls(
            structure.shape,
            float(structure.voxel_size_um),
            structure.periodic,
            tuple(structure.phase_names),
            channels,
        )

    def check_same(self, other: "Layout", who: str) -> None:
        """Raise DataError, naming `who` and the difference, unless both layouts agree."""
        for name in ("shape", "voxel_size_um", "periodic", "phase_names", "channels"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise DataError(
                    f"expected all samples of a dataset to share {name} {theirs}, {who} has "
                    f"{mine}; make a dataset of its own for it"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the layout as plain data."""
        return {
            "shape": list(self.shape),
            "voxel_size_um": self.voxel_size_um,
            "periodic": list(self.periodic),
            "phase_names": list(self.phase_names),
            "channels": {name: [t, list(shape)] for name, (t, shape) in self.channels.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Layout":
        """Rebuild a layout from `to_json`; KeyError, TypeError or ValueError when it is none."""
        channels = {
            str(name): (np.dtype(t).str, tuple(int(n) for n in shape))
            for name, (t, shape) in data["channels"].items()
        }
        return cls(
            tuple(int(n) for n in data["shape"]),
            float(data["voxel_size_um"]),
            tuple(bool(p) for p in data["periodic"]),
            tuple(str(name) for name in data["phase_names"]),
            channels,
        )


@dataclass(frozen=True)
class Shard:
    """The samples of a shard without their channels.

    Args:
        layout: What the samples share.
        phases: Labels uint8, shape `(n, *space)`.
        process: Raw process values float64, shape `(n, d)`: a choice by its index, unknown NaN.
        specimens: The specimen that each sample was taken from.
        sources: The file or simulation that each sample came from.
    """

    layout: Layout
    phases: np.ndarray
    process: np.ndarray
    specimens: list[str]
    sources: list[str]


def encode_process(space: ProcessSpace, process: Mapping[str, ProcessValue]) -> list[float]:
    """Return one number per parameter: the value, the index of a choice, or NaN for unknown.

    Raises:
        DataError: A name is not in the space, or a value is out of bounds.
    """
    space.to_unit(process)
    row = []
    for parameter in space:
        value = process.get(parameter.name)
        if value is None:
            row.append(math.nan)
        elif parameter.scale == "choice":
            row.append(float(parameter.choices.index(str(value))))
        else:
            row.append(float(value))
    return row


def decode_process(space: ProcessSpace, row: Sequence[float]) -> dict[str, ProcessValue]:
    """Return the process dict of a row made by `encode_process`."""
    process: dict[str, ProcessValue] = {}
    for parameter, number in zip(space, row, strict=True):
        if math.isnan(number):
            process[parameter.name] = None
        elif parameter.scale == "choice":
            process[parameter.name] = parameter.choices[int(number)]
        else:
            process[parameter.name] = int(number) if parameter.scale == "integer" else float(number)
    return process


def shard_bytes(
    structures: Sequence[Microstructure],
    layout: Layout,
    space: ProcessSpace,
    *,
    specimens: Sequence[str],
    sources: Sequence[str],
) -> bytes:
    """Return the HDF5 file of a shard, built in memory without time stamps.

    Equal samples give equal bytes; a full disk meets Python's own write, never the HDF5 library
    (which ends the process).
    """
    import h5py

    process = np.array([encode_process(space, m.process) for m in structures], np.float64)
    texts = {"layout": layout.to_json(), "specimens": list(specimens), "sources": list(sources)}
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        _store(file, "phases", np.stack([m.phases for m in structures]), per_sample=False)
        _store(file, "process", process.reshape(len(structures), len(space)), per_sample=False)
        _store(file, "texts", np.frombuffer(json.dumps(texts).encode(), np.uint8), per_sample=False)
        for k, (name, (number_type, _)) in enumerate(layout.channels.items()):
            fields = np.stack([m.channels[name].astype(number_type) for m in structures])
            _store(file, f"channel {k}", fields, per_sample=True)
        file.flush()
        return file.id.get_file_image()


def read_shard(path: Path) -> Shard:
    """Return a shard's samples without their channels.

    Raises:
        CheckpointError: The file is not a shard, or points to other files.
    """
    from microstructures.hdf5_guard import check_chunks

    with _opened(path) as file:
        texts = json.loads(_numbers(file, "texts")[()].tobytes())
        layout = Layout.from_json(texts["layout"])
        specimens, sources = texts["specimens"], texts["sources"]
        stored, process = _numbers(file, "phases"), _numbers(file, "process")
        check_chunks(stored)
        n = len(stored)
        if stored.shape != (n, *layout.shape) or stored.dtype != np.uint8:
            raise ValueError(f"phases are {stored.dtype} of shape {stored.shape}")
        if process.ndim != 2 or not n == len(process) == len(specimens) == len(sources):
            raise ValueError(f"{n} samples, {len(process)} processes, {len(specimens)} specimens")
        if not all(isinstance(text, str) for text in (*specimens, *sources)):
            raise ValueError("specimens and sources that are no texts")
        phases = stored[()]
        if phases.max(initial=0) >= len(layout.phase_names):
            raise ValueError("a label without a name")
        return Shard(layout, phases, process[()].astype(np.float64), specimens, sources)


class ShardedChannels:
    """Channels of a dataset on disk, read when a sample is asked for.

    Args:
        paths: The shards.
        counts: Samples in each shard.
        layout: What the samples share.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], layout: Layout) -> None:
        self._paths = list(paths)
        self._ends = np.cumsum(counts)
        self._layout = layout

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return the channels of one sample.

        Raises:
            CheckpointError: The shard does not hold them as its manifest says.
        """
        if not self._layout.channels:
            return {}
        shard = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[shard - 1]) if shard else 0
        count = int(self._ends[shard]) - start
        channels = {}
        with _opened(self._paths[shard]) as file:
            for k, (name, (number_type, shape)) in enumerate(self._layout.channels.items()):
                stored = _numbers(file, f"channel {k}")
                if stored.shape != (count, *shape):
                    raise ValueError(f"channel {name!r} has shape {stored.shape}")
                channels[name] = stored[row - start].astype(number_type)
        return channels


def _store(file: Any, name: str, values: np.ndarray, *, per_sample: bool) -> None:
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.size == 0:
        file.create_dataset(name, data=values, track_times=False)
        return
    sample_bytes = max(values[0].nbytes, 1)
    rows = 1 if per_sample else max(1, min(len(values), _CHUNK_BYTES // sample_bytes))
    file.create_dataset(
        name,
        data=values,
        chunks=(rows, *values.shape[1:]),
        compression="gzip",
        compression_opts=4,
        shuffle=values.itemsize > 1,
        track_times=False,
    )


def _numbers(file: Any, name: str) -> Any:
    from microstructures.hdf5_guard import open_numbers

    dataset = open_numbers(file, name)
    if dataset.size * dataset.dtype.itemsize > _MAX_RATIO * (dataset.id.get_storage_size() + 1024):
        raise ValueError(f"{name} declares more than it can hold")
    return dataset


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a shard of ours: {error}; make it again") from error
    except (DataError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a shard of ours: {error}") from error
