"""Measured volumes: the part whose sections a method may see, and blocks of the rest as truth."""

import io
import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from generators import ConditionalDiffusion, SectionDiffusion
from microstructures import DataError
from studies.generator_contenders import Contender
from studies.measured_data import data_folder
from studies.settings import GeneratorBenchSettings

QUICK_SIDE = 16
BEREA_SIDE = {"small": 64, "full": 128}
CATHODE_SIDE = {"small": 32, "full": 64}
ANODE_SIDE = 30
"""Voxels a side of the blocks, by tier; the bars are on the full one."""

BEREA_GAPS = 4
"""Gaps between the truth's blocks along each axis, with a section in each."""

CATHODE_SHARE, ANODE_SHARE = 64 / 128, 32 / 62
CATHODE_SPACING, ANODE_SPACING = 4, 2
"""Share of axis 0 whose sections may be seen, and voxels from one to the next, as
configs/import-NAME-sections.yaml have them."""

Spans = Sequence[Sequence[tuple[int, int]]]
"""First voxel and end of the parts along each axis that the truth is cut from."""


@dataclass(frozen=True)
class KnownVolume:
    """A measured volume: sections of one part of it, and blocks of the rest.

    Args:
        name: Stem of stages; a model whose name holds it is judged here.
        about: Source, licence, size, and which part the sections are from.
        blocks: Labels `(block, x, y, z)`, the truth; none of their voxels is in a section.
        slices: Sections `(slice, x, y)` of the other part, as baselines and pilots use them.
        phase_names: One name per label.
        phases: Labels that surface, S2, lineal path and Euler density are of.
    """

    name: str
    about: str
    blocks: Integer[Tensor, "block x y z"]
    slices: Integer[Tensor, "slice x y"]
    phase_names: tuple[str, ...]
    phases: tuple[int, ...]

    def entrant(self, contender: Contender) -> Contender | None:
        """Return a contender that is judged here as a generator of volumes, else None.

        It has as many phases and carries the volume's name. A model of sections without a
        process enters as the volumes that are made of it.
        """
        model = contender.model
        if len(model.phase_names) != len(self.phase_names):
            return None
        if self.name not in contender.name.lower():
            return None
        if len(model.periodic) == 3:
            return contender
        if isinstance(model, ConditionalDiffusion) and not len(model.space):
            return replace(contender, model=SectionDiffusion.of_sections(model))
        return None


def berea(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the Berea sandstone, None where it is absent."""
    import tifffile

    path = data_folder() / "rock_microct_berea" / "berea.zip"
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as archive:
        grains = tifffile.imread(io.BytesIO(archive.read("berea.tif")))
    # Pages of a picture are direction 3, as `read_microstructure` has them.
    labels = (np.asarray(grains).transpose(2, 1, 0) == 0).astype(np.uint8)
    side = BEREA_SIDE[settings.tier]
    spans, places = berea_layout(labels.shape[0], QUICK_SIDE if settings.quick else 128)
    about = (
        f"Berea sandstone, micro-CT, {' x '.join(map(str, labels.shape))} (Imperial College; "
        "Mosser et al., 2017, MIT licence); sections are "
        f"{', '.join(map(str, places))} along each axis, blocks lie between them. Quoted, not "
        "measured here: the 3-D GAN of Mosser et al. misses at 200 x 200 x 200 the surface by "
        "2.8 %, the Euler density by 2.1 % and the pores' S2 by 2.2 %, having seen volumes."
    )
    blocks = _cut(labels, [spans] * 3, side=side, settings=settings)
    used = slice(places[0], labels.shape[0] - places[0])
    sections = [labels.take(place, axis)[used, used] for axis in range(3) for place in places]
    return KnownVolume("berea", about, blocks, _stacked(sections), ("grain", "pore"), (1,))


def berea_layout(length: int, side: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the spans of the truth along an axis, and the sections in the gaps around them.

    As many spans of `side` voxels as `BEREA_GAPS` gaps of equal width bound: 400 voxels are
    4 + 128 + 4 + 128 + 4 + 128 + 4. Sections are in the middle of the gaps, rounded down.
    """
    gap = (length - (BEREA_GAPS - 1) * side) // BEREA_GAPS
    if gap < 1:
        raise DataError(
            f"expected a volume of at least {(BEREA_GAPS - 1) * side + BEREA_GAPS} voxels a side, "
            f"got {length}; leave out track C, or use the data as it was published"
        )
    starts = [gap + k * (side + gap) for k in range(BEREA_GAPS - 1)]
    places = [k * (side + gap) + (gap - 1) // 2 for k in range(BEREA_GAPS)]
    return [(start, start + side) for start in starts], places


def cathode(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the NMC cathode, None where it is absent."""
    labels = _electrode("NMC_lr_input")
    if labels is None:
        return None
    about = (
        "NMC cathode, 128 x 128 x 128 (Dahari et al., 2023, MIT licence); sections are of x below "
        "64, blocks of the other half."
    )
    names = ("phase 0", "phase 1")
    side, spacing = CATHODE_SIDE[settings.tier], CATHODE_SPACING
    parts = _halved(labels, side, share=CATHODE_SHARE, spacing=spacing, settings=settings)
    return KnownVolume("nmc", about, *parts, names, (1,))


def anode(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the SOFC anode, None where it is absent."""
    labels = _electrode("SOFC_lr_input")
    if labels is None:
        return None
    about = (
        "SOFC anode, three phases, 62 x 62 x 62 (Dahari et al., 2023, MIT licence); sections are "
        "of x below 32, blocks of the rest."
    )
    names = ("phase 0", "phase 1", "phase 2")
    parts = _halved(labels, ANODE_SIDE, share=ANODE_SHARE, spacing=ANODE_SPACING, settings=settings)
    return KnownVolume("sofc", about, *parts, names, (0, 1, 2))


def _electrode(name: str) -> np.ndarray | None:
    path = data_folder() / "electrodes" / f"{name}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return stored["phase"]


def _halved(
    labels: np.ndarray, side: int, *, share: float, spacing: int, settings: GeneratorBenchSettings
) -> tuple[Tensor, Tensor]:
    """Return all whole blocks beyond the seen part of axis 0, and sections of that part."""
    seen = round(share * labels.shape[0])
    spans = [[(seen if axis == 0 else 0, n)] for axis, n in enumerate(labels.shape)]
    # Only sections normal to this axis are as large as the volume.
    sections = torch.from_numpy(labels[:seen:spacing].copy())
    return _cut(labels, spans, side=side, settings=settings), sections


def _cut(
    labels: np.ndarray, spans: Spans, *, side: int, settings: GeneratorBenchSettings
) -> Tensor:
    """Return all whole blocks within the spans."""
    side = min(side, QUICK_SIDE) if settings.quick else side
    starts = [
        [start for low, end in along for start in range(low, end - side + 1, side)]
        for along in spans
    ]
    blocks = [
        labels[tuple(slice(start, start + side) for start in corner)]
        for corner in itertools.product(*starts)
    ]
    if not blocks:
        raise DataError(
            f"expected a block of {side} voxels a side within {spans}, got a volume of "
            f"{labels.shape}; leave out track C, or use the data as it was published"
        )
    return _stacked(blocks)


def _stacked(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(parts))
