"""Datasets: immutable shards under a hashed manifest, read as a torch Dataset."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from microstructures.building import Building, shard_name
from microstructures.errors import CheckpointError, DataError
from microstructures.process_space import ProcessSpace
from microstructures.publishing import folder_digest, open_verified, publish_folder
from microstructures.seeds import derive_seed
from microstructures.shards import (
    Layout,
    ShardedChannels,
    decode_process,
    encode_process,
    read_shard,
    shard_bytes,
)
from microstructures.structure import Microstructure

KIND = "dataset"


@runtime_checkable
class Channels(Protocol):
    """Gives the channels of the sample in one row."""

    def __getitem__(self, row: int, /) -> Mapping[str, np.ndarray]: ...


class MicrostructureDataset(torch.utils.data.Dataset[Microstructure]):
    """Microstructures of one shape with the process that made each; never changed in place.

    Made by `open`, `from_structures` or `DatasetBuilder.finish`. Labels and processes lie in
    memory, channels are read when a sample is asked for.

    >>> data = MicrostructureDataset.open("spinodal")  # doctest: +SKIP
    >>> train, held_out = data.split(0.2, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        space: ProcessSpace,
        layout: Layout,
        phases: UInt8[Tensor, "n *space"],
        process: np.ndarray,
        specimens: list[str],
        sources: list[str],
        channels: Channels,
        rows: np.ndarray,
        digest: str,
        about: Mapping[str, Any],
    ) -> None:
        self.space = space
        self.phases = phases
        self.specimens = specimens
        self.sources = sources
        self.digest = digest
        self.about = dict(about)
        self._layout = layout
        self._process = process
        self._channels = channels
        self._rows = rows
        units = [space.to_unit(decode_process(space, row)) for row in process.tolist()]
        self._units = torch.tensor(units, dtype=torch.float32).reshape(len(phases), len(space))

    @classmethod
    def open(cls, folder: str | Path) -> "MicrostructureDataset":
        """Open a dataset folder after checking every file against its recorded hash.

        Raises:
            CheckpointError: It is no dataset, or incomplete, altered or damaged.
        """
        folder = Path(folder)
        manifest = open_verified(folder, kind=KIND)
        try:
            space = ProcessSpace.from_json(manifest["space"])
            layout = Layout.from_json(manifest["layout"])
            counts = [int(n) for n in manifest["samples_per_shard"]]
            about = dict(manifest["about"])
        except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
            raise CheckpointError(f"{folder} does not describe a dataset: {error}") from error
        paths = [folder / shard_name(k) for k in range(len(counts))]
        shards = [read_shard(path) for path in paths]
        for path, shard, count in zip(paths, shards, counts, strict=True):
            if shard.layout != layout or len(shard.phases) != count:
                raise CheckpointError(f"{path} does not fit its dataset; make the dataset again")
        try:
            return cls(
                space=space,
                layout=layout,
                phases=torch.from_numpy(np.concatenate([s.phases for s in shards])),
                process=np.concatenate([s.process for s in shards]),
                specimens=[name for s in shards for name in s.specimens],
                sources=[name for s in shards for name in s.sources],
                channels=ShardedChannels(paths, counts, layout),
                rows=np.arange(sum(counts)),
                digest=folder_digest(folder),
                about=about,
            )
        except (ValueError, IndexError, DataError) as error:
            raise CheckpointError(f"{folder} holds no valid processes: {error}") from error

    @classmethod
    def from_structures(
        cls,
        structures: Sequence[Microstructure],
        space: ProcessSpace,
        *,
        specimens: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
    ) -> "MicrostructureDataset":
        """Return a dataset in memory.

        Args:
            structures: Samples of one shape, voxel size, periodicity and set of phases.
            space: The parameters that their processes belong to.
            specimens: One name per sample; each sample its own specimen when left out.
            sources: One file or simulation per sample; "memory" when left out.

        Raises:
            DataError: Samples differ in layout, or a process is outside the space.
        """
        layout = Layout.shared_by(structures)
        own = [f"{k:07d}" for k in range(len(structures))]
        specimens = _names(specimens, own, "specimens")
        sources = _names(sources, ["memory"] * len(own), "sources")
        process = np.array([encode_process(space, m.process) for m in structures], np.float64)
        process = process.reshape(len(structures), len(space))
        phases = np.stack([m.phases for m in structures])
        about = [layout.to_json(), space.to_json(), specimens, sources]
        channels = [dict(m.channels) for m in structures]
        fields = [c[name] for c in channels for name in layout.channels]
        return cls(
            space=space,
            layout=layout,
            phases=torch.from_numpy(phases),
            process=process,
            specimens=specimens,
            sources=sources,
            channels=channels,
            rows=np.arange(len(structures)),
            digest=_digest(json.dumps(about), phases, process, *fields),
            about={},
        )

    def __len__(self) -> int:
        return len(self.phases)

    def __getitem__(self, index: int) -> Microstructure:
        """Return one sample with its channels."""
        row = range(len(self))[int(index)]
        return Microstructure(
            phases=self.phases[row].numpy().copy(),
            voxel_size_um=self.voxel_size_um,
            periodic=self.periodic,
            process=decode_process(self.space, self._process[row].tolist()),
            phase_names=self.phase_names,
            channels=self._channels[int(self._rows[row])],
        )

    @property
    def process_units(self) -> Float32[Tensor, "n d"]:
        """Unit coordinates of each sample's process in [0, 1], NaN where unknown."""
        return self._units

    @property
    def n_phases(self) -> int:
        """Number of phases that have a name."""
        return len(self._layout.phase_names)

    @property
    def phase_names(self) -> tuple[str, ...]:
        """One name per label."""
        return self._layout.phase_names

    @property
    def voxel_size_um(self) -> float:
        """Voxel edge in micrometres."""
        return self._layout.voxel_size_um

    @property
    def periodic(self) -> tuple[bool, ...]:
        """One flag per axis."""
        return self._layout.periodic

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of a sample along each axis."""
        return self._layout.shape

    def subset(
        self,
        indices: Sequence[int] | np.ndarray | Tensor,
        *,
        space: ProcessSpace | None = None,
    ) -> "MicrostructureDataset":
        """Return the samples at `indices`, in that order.

        Args:
            indices: Rows of the samples.
            space: The same parameters with narrower bounds that hold those samples; the
                dataset's own when left out.

        Raises:
            DataError: There are none, an index is out of range, or a sample is outside the space.
        """
        chosen = np.asarray(indices).ravel()
        if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise DataError("expected the whole-number indices of at least one sample, got none")
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise DataError(
                f"expected sample indices from 0 to {len(self) - 1}, got {chosen.min()} to "
                f"{chosen.max()}"
            )
        words = self.digest if space is None else self.digest + json.dumps(space.to_json())
        return MicrostructureDataset(
            space=space or self.space,
            layout=self._layout,
            phases=self.phases[torch.from_numpy(chosen.astype(np.int64))],
            process=self._process[chosen],
            specimens=[self.specimens[k] for k in chosen],
            sources=[self.sources[k] for k in chosen],
            channels=self._channels,
            rows=self._rows[chosen],
            digest=_digest(words, chosen.astype(np.int64)),
            about=self.about,
        )

    def split(
        self, share: float, *, seed: int
    ) -> tuple["MicrostructureDataset", "MicrostructureDataset"]:
        """Return (train, held out): `share` of the samples are held out, by whole specimens.

        No specimen has samples on both sides, and each side has at least one specimen, so the
        share is met as nearly as whole specimens allow. The same names and seed give the same
        sides whatever the order of the samples.

        Raises:
            DataError: The share is not between 0 and 1, or there is one specimen only.
        """
        if not 0 < share < 1:
            raise DataError(f"expected the held-out share between 0 and 1, got {share}")
        names, counts = np.unique(np.asarray(self.specimens), return_counts=True)
        if len(names) < 2:
            raise DataError(
                f"expected at least two specimens to split by, got only {self.specimens[0]!r}; "
                "name the specimens when the dataset is made"
            )
        order = sorted(range(len(names)), key=lambda k: derive_seed("split", seed, str(names[k])))
        wanted, held, held_names = share * len(self), 0, set()
        for k in order:
            nearer = abs(held + counts[k] - wanted) < abs(held - wanted)
            if nearer and len(held_names) < len(names) - 1:
                held += int(counts[k])
                held_names.add(str(names[k]))
        if not held_names:
            held_names.add(str(names[min(order, key=lambda k: counts[k])]))
        out = np.array([name in held_names for name in self.specimens])
        return self.subset(np.flatnonzero(~out)), self.subset(np.flatnonzero(out))


class DatasetBuilder:
    """Makes a dataset shard by shard; the folder appears under its name when it is complete.

    Shards gather in `FOLDER.building`, each published whole, in any order and by any number of
    processes; repeating an interrupted job makes only what `missing` names. The finished dataset
    is byte-equal for every order and interruption.

    Args:
        folder: The dataset's folder.
        space: The process space of all samples.
        about: JSON-able facts that identify the job (settings, seed), kept in the manifest.

    Raises:
        DataError: The folder holds something else, or a dataset of another job.
    """

    def __init__(
        self, folder: str | Path, space: ProcessSpace, *, about: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.space = space
        self._job = {"space": space.to_json(), "about": dict(about or {})}
        self._building = Building(self.folder, self._job, kind=KIND)
        self._n_shards: int | None = None
        self._layout: Layout | None = None

    def missing(self, n_shards: int) -> list[int]:
        """Return the shards of `n_shards` that are still to be made; none when it is finished.

        Raises:
            DataError: There are shards beyond `n_shards`.
        """
        self._n_shards = n_shards
        return self._building.missing(n_shards)

    def add(
        self,
        shard_index: int,
        structures: Sequence[Microstructure],
        specimens: Sequence[str] | None = None,
        *,
        sources: Sequence[str] | None = None,
    ) -> None:
        """Publish one shard.

        Args:
            shard_index: Its number from 0.
            structures: Its samples.
            specimens: One name per sample; each sample its own specimen when left out.
            sources: The file or simulation of each sample; the shard's number when left out.

        Raises:
            DataError: A sample differs in layout from the others, a process is outside the
                space, the shard exists with other content, or the disk is full.
        """
        layout = Layout.shared_by(structures)
        layout.check_same(self._known_layout(layout), f"shard {shard_index}")
        own = [f"{shard_index:05d}-{k:05d}" for k in range(len(structures))]
        content = shard_bytes(
            structures,
            layout,
            self.space,
            specimens=_names(specimens, own, "specimens"),
            sources=_names(sources, [f"shard {shard_index}"] * len(own), "sources"),
        )
        self._building.add(shard_index, content)

    def finish(self) -> MicrostructureDataset:
        """Publish the folder, all shards with the hashed manifest last, and open it.

        Raises:
            DataError: Shards are missing or differ in layout, or the disk is full.
            CheckpointError: A shard was damaged since it was made.
        """
        if not self._building.finished:
            paths = self._building.complete_shards(self._n_shards)
            layouts, counts = self._headings(paths)
            about = {
                **self._job,
                "layout": layouts[0].to_json(),
                "samples": sum(counts),
                "samples_per_shard": counts,
            }
            publish_folder(
                self.folder,
                lambda partial: self._building.place(paths, partial),
                kind=KIND,
                about=about,
            )
        self.discard()
        return MicrostructureDataset.open(self.folder)

    def discard(self) -> None:
        """Remove the unfinished shards."""
        shutil.rmtree(self._building.folder, ignore_errors=True)

    def _known_layout(self, own: Layout) -> Layout:
        if self._layout is None:
            present = self._building.present()
            self._layout = read_shard(present[min(present)]).layout if present else own
        return self._layout

    def _headings(self, paths: Sequence[Path]) -> tuple[list[Layout], list[int]]:
        layouts, counts = [], []
        for path in paths:
            shard = read_shard(path)
            layouts.append(shard.layout)
            counts.append(len(shard.phases))
            shard.layout.check_same(layouts[0], path.name)
        return layouts, counts


def _names(given: Sequence[str] | None, own: list[str], what: str) -> list[str]:
    if given is None:
        return own
    names = list(given)
    if len(names) != len(own) or not all(isinstance(name, str) for name in names):
        raise DataError(f"expected {len(own)} {what}, one text per sample, got {len(names)}")
    return names


def _digest(text: str, *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
