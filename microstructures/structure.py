"""What a microstructure is: labelled voxels with their size, origin and history."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from microstructures.errors import DataError

ProcessValue = float | int | str | None


@dataclass(frozen=True, eq=False)
class Microstructure:
    """A labelled voxel image with its physical scale and the process that made it.

    Args:
        phases: Integer labels 0, 1, ..., shape `(*space)`, two or three axes; axis 0 is
            direction 1 ("x"), axis 1 direction 2, axis 2 direction 3.
        voxel_size_um: Edge of the square or cubic voxel in micrometres.
        periodic: One flag per axis; a single flag is meant for all axes.
        process: Process parameter name to value; None or a missing name means unknown.
        phase_names: One name per label; made up as "phase 0", ... when left out.
        channels: Further fields, name to array `(*component, *space)`: a grey image, grain ids,
            orientations (unit quaternions, 4 components), strain or stress (Mandel components).

    Raises:
        DataError: Labels are not integers from 0, or a channel does not fit the space.
    """

    phases: np.ndarray
    voxel_size_um: float = 1.0
    periodic: tuple[bool, ...] = (True,)
    process: Mapping[str, ProcessValue] = field(default_factory=dict)
    phase_names: tuple[str, ...] = ()
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        phases = np.asarray(self.phases)
        if phases.ndim not in (2, 3) or phases.size == 0:
            raise DataError(f"expected phases with 2 or 3 axes, got shape {phases.shape}")
        if not np.issubdtype(phases.dtype, np.integer):
            raise DataError(f"expected integer phase labels, got {phases.dtype}; round them first")
        if phases.min() < 0 or phases.max() > 255:
            raise DataError(
                f"expected phase labels from 0 to 255, got {phases.min()} to {phases.max()}"
            )
        if not _positive(self.voxel_size_um):
            raise DataError(f"expected voxel_size_um above 0, got {self.voxel_size_um!r}")
        periodic = tuple(bool(p) for p in np.atleast_1d(self.periodic))
        if len(periodic) == 1:
            periodic *= phases.ndim
        if len(periodic) != phases.ndim:
            raise DataError(f"expected {phases.ndim} periodic flags, got {len(periodic)}")
        highest = int(phases.max())
        names = tuple(self.phase_names) or tuple(f"phase {i}" for i in range(highest + 1))
        if len(names) <= highest:
            raise DataError(f"expected a name for each label up to {highest}, got {len(names)}")
        channels = {name: np.asarray(channel) for name, channel in self.channels.items()}
        for name, channel in channels.items():
            if channel.shape[channel.ndim - phases.ndim :] != phases.shape:
                raise DataError(
                    f"expected channel {name!r} to end in shape {phases.shape}, got {channel.shape}"
                )
        object.__setattr__(self, "phases", phases.astype(np.uint8, copy=False))
        object.__setattr__(self, "periodic", periodic)
        object.__setattr__(self, "phase_names", names)
        object.__setattr__(self, "process", dict(self.process))
        object.__setattr__(self, "channels", channels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.phases.shape

    @property
    def n_phases(self) -> int:
        """Number of phases that have a name, present here or not."""
        return len(self.phase_names)

    @property
    def volume_fractions(self) -> np.ndarray:
        """Share of voxels of each phase, shape `(n_phases,)`; sums to 1."""
        return np.bincount(self.phases.ravel(), minlength=self.n_phases) / self.phases.size

    @property
    def indicators(self) -> np.ndarray:
        """One-hot phases as float32, shape `(n_phases, *space)`."""
        labels = np.arange(self.n_phases).reshape(-1, *[1] * self.phases.ndim)
        return (self.phases[None] == labels).astype(np.float32)

    def with_channels(self, **channels: Any) -> "Microstructure":
        """Return a copy with channels added or replaced."""
        return Microstructure(
            phases=self.phases,
            voxel_size_um=self.voxel_size_um,
            periodic=self.periodic,
            process=self.process,
            phase_names=self.phase_names,
            channels={**self.channels, **channels},
        )


@dataclass(frozen=True, eq=False)
class GeneratedMicrostructure(Microstructure):
    """A microstructure made by a generator; it knows whether its process was extrapolated.

    Args:
        extrapolated: True when its process lies outside the range that the generator was trained
            on. Such a process does not fit the generator's `space` either, so that no dataset of
            that space takes the sample in by mistake.
    """

    extrapolated: bool = False

    def with_channels(self, **channels: Any) -> "GeneratedMicrostructure":
        """Return a copy with channels added or replaced."""
        return replace(self, channels={**self.channels, **channels})


def _positive(size: Any) -> bool:
    try:
        return bool(np.isfinite(size) and size > 0)
    except (TypeError, ValueError):
        return False
