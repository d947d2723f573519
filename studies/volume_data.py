"""Measured volumes, cut into blocks, and the sections that a 2-D to 3-D method may see."""

import io
import itertools
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from studies.generator_contenders import Contender
from studies.measured_data import data_folder
from studies.settings import GeneratorBenchSettings

QUICK_SIDE = 24


@dataclass(frozen=True)
class KnownVolume:
    """A measured volume, cut into blocks.

    Args:
        name: Stem of stages; a model whose name holds it is judged here.
        about: Source, licence, size.
        blocks: Labels `(block, x, y, z)`.
        slices: Sections `(slice, x, y)`, all that a 2-D to 3-D method may see.
        phase_names: One name per label.
        phases: Labels that surface, S2, lineal path and Euler density are of.
    """

    name: str
    about: str
    blocks: Integer[Tensor, "block x y z"]
    slices: Integer[Tensor, "slice x y"]
    phase_names: tuple[str, ...]
    phases: tuple[int, ...]

    def judges(self, contender: Contender) -> bool:
        """Say whether a model is 3-D, has as many phases, and carries the volume's name."""
        model = contender.model
        same = len(model.periodic) == 3 and len(model.phase_names) == len(self.phase_names)
        return same and self.name in contender.name.lower()


def berea(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the Berea sandstone, None where it is absent."""
    import tifffile

    path = data_folder() / "rock_microct_berea" / "berea.zip"
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as archive:
        grains = tifffile.imread(io.BytesIO(archive.read("berea.tif")))
    most = 27 if settings.tier == "full" else 8
    about = (
        "Berea sandstone, micro-CT, 400 x 400 x 400 (Imperial College; Mosser et al., 2017, MIT "
        "licence)."
    )
    labels = (np.asarray(grains) == 0).astype(np.uint8)
    return _cut("berea", about, labels, 128, most, ("grain", "pore"), (1,), settings)


def cathode(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the NMC cathode, None where it is absent."""
    labels = _electrode("NMC_lr_input")
    about = "NMC cathode, 128 x 128 x 128 (Dahari et al., 2023, MIT licence)."
    names = ("phase 0", "phase 1")
    return labels if labels is None else _cut("nmc", about, labels, 64, 8, names, (1,), settings)


def anode(settings: GeneratorBenchSettings) -> KnownVolume | None:
    """Return the SOFC anode, None where it is absent."""
    labels = _electrode("SOFC_lr_input")
    about = "SOFC anode, three phases, 62 x 62 x 62 (Dahari et al., 2023, MIT licence)."
    names = ("phase 0", "phase 1", "phase 2")
    phases = (0, 1, 2)
    return labels if labels is None else _cut("sofc", about, labels, 31, 8, names, phases, settings)


def _electrode(name: str) -> np.ndarray | None:
    path = data_folder() / "electrodes" / f"{name}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return stored["phase"]


def _cut(
    name: str,
    about: str,
    labels: np.ndarray,
    side: int,
    most: int,
    phase_names: tuple[str, ...],
    phases: tuple[int, ...],
    settings: GeneratorBenchSettings,
) -> KnownVolume:
    """Return at most `most` blocks of the volume, spread evenly over it, and three sections."""
    side = min(side, QUICK_SIDE) if settings.quick else side
    starts = [range(0, n - side + 1, side) for n in labels.shape]
    corners = list(itertools.product(*starts))
    chosen = np.unique(np.linspace(0, len(corners) - 1, min(most, len(corners))).astype(int))
    blocks = [
        labels[tuple(slice(start, start + side) for start in corners[int(k)])] for k in chosen
    ]
    middle = [np.take(labels, n // 2, axis) for axis, n in enumerate(labels.shape)]
    return KnownVolume(
        name,
        about,
        torch.from_numpy(np.stack(blocks)),
        torch.from_numpy(np.stack(middle)),
        phase_names,
        phases,
    )
