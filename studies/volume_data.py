"""Measured volumes: the part whose sections a method may see, and blocks of the rest as truth."""

import io
import itertools
import zipfile
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

BEREA_SHARE, CATHODE_SHARE, ANODE_SHARE = 144 / 400, 64 / 128, 32 / 62
"""Share of an axis whose sections may be seen: configs/import-NAME-sections.yaml take these."""


@dataclass(frozen=True)
class KnownVolume:
    """A measured volume: sections of one part of it, and blocks of the rest.

    Args:
        name: Stem of stages; a model whose name holds it is judged here.
        about: Source, licence, size, and which part the sections are from.
        blocks: Labels `(block, x, y, z)`, the truth; none of their voxels is in a section.
        slices: Sections `(slice, x, y)` of the other part, as baselines use them.
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
    about = (
        "Berea sandstone, micro-CT, 400 x 400 x 400 (Imperial College; Mosser et al., 2017, MIT "
        "licence); sections are of pages 0 to 143, blocks of the other pages. Quoted, not measured "
        "here: the 3-D GAN of Mosser et al. misses at 200 x 200 x 200 the surface by 2.8 %, the "
        "Euler density by 2.1 % and the pores' S2 by 2.2 %, having seen volumes."
    )
    # Pages of a picture are direction 3, as `read_microstructure` has them.
    labels = (np.asarray(grains).transpose(2, 1, 0) == 0).astype(np.uint8)
    parts = _cut(
        labels, side=BEREA_SIDE[settings.tier], axis=2, share=BEREA_SHARE, settings=settings
    )
    return KnownVolume("berea", about, *parts, ("grain", "pore"), (1,))


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
    parts = _cut(
        labels, side=CATHODE_SIDE[settings.tier], axis=0, share=CATHODE_SHARE, settings=settings
    )
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
    parts = _cut(labels, side=ANODE_SIDE, axis=0, share=ANODE_SHARE, settings=settings)
    return KnownVolume("sofc", about, *parts, names, (0, 1, 2))


def _electrode(name: str) -> np.ndarray | None:
    path = data_folder() / "electrodes" / f"{name}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return stored["phase"]


def _cut(
    labels: np.ndarray,
    *,
    side: int,
    axis: int,
    share: float,
    settings: GeneratorBenchSettings,
) -> tuple[Tensor, Tensor]:
    """Return all whole blocks beyond the seen part of an axis, and three sections of that part."""
    side = min(side, QUICK_SIDE) if settings.quick else side
    seen = round(share * labels.shape[axis])
    starts = [
        range(seen if a == axis else 0, n - side + 1, side) for a, n in enumerate(labels.shape)
    ]
    blocks = [
        labels[tuple(slice(start, start + side) for start in corner)]
        for corner in itertools.product(*starts)
    ]
    if not blocks:
        raise DataError(
            f"expected a volume with a block of {side} voxels a side beyond voxel {seen} of axis "
            f"{axis}, got {labels.shape}; leave out track C, or use the data as it was published"
        )
    # Only sections normal to this axis are as large as the volume.
    places = [seen * (2 * k + 1) // 6 for k in range(3)]
    sections = [labels.take(place, axis) for place in places]
    return torch.from_numpy(np.stack(blocks)), torch.from_numpy(np.stack(sections))
