"""Where the compared micrographs come from: real ones, rendered ones, and the naive ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generators.diffusion_training import DiffusionSettings, train_diffusion
from generators.families import load_generator
from generators.generator import ConditionalGenerator
from generators.micrograph import MicrographRenderer
from generators.micrograph_fidelity import standardised
from generators.micrograph_training import MicrographSettings, train_micrographs
from microstructures import DataError, Microstructure, MicrostructureDataset
from microstructures.cropping import crop_origins
from microstructures.micrographs import GREY
from microstructures.seeds import derive_seed
from studies.progress import progress_bar

Pictures = Sequence[Microstructure]


@dataclass(frozen=True)
class TrainedPair:
    """What was trained on the training pictures.

    Args:
        renderer: Phases to grey.
        generator: Process to phases; None when it was not asked for.
    """

    renderer: MicrographRenderer
    generator: ConditionalGenerator | None


def trained_pair(
    training: MicrostructureDataset,
    renderer: MicrographSettings,
    generator: DiffusionSettings | None,
    folder: Path,
    *,
    crop: int,
) -> TrainedPair:
    """Return the models of a folder, trained where they are not there yet; resumes."""
    if not (folder / "renderer" / "manifest.json").exists():
        with progress_bar("train renderer", renderer.training.steps) as advance:
            target = folder / "renderer"
            train_micrographs(training, renderer, target, progress=lambda k, *_: advance(k))
    if generator is not None and not (folder / "generator" / "manifest.json").exists():
        with progress_bar("train generator", generator.training.steps) as advance:
            crops, target = cropped(training, crop), folder / "generator"
            train_diffusion(crops, generator, target, progress=lambda k, *_: advance(k))
    return TrainedPair(
        MicrographRenderer.from_pretrained(folder / "renderer"),
        None if generator is None else load_generator(folder / "generator"),
    )


def cropped(dataset: MicrostructureDataset, crop: int) -> MicrostructureDataset:
    """Return the phases of all crops of a dataset that lie at most half a crop apart.

    Raises:
        DataError: The crop is larger than the samples.
    """
    if crop > min(dataset.shape):
        raise DataError(f"expected a crop within samples of {dataset.shape}, got {crop}")
    corners = crop_origins(np.zeros(dataset.shape, dtype=bool), crop=crop, stride=max(1, crop // 2))
    structures, specimens, sources = [], [], []
    for k in range(len(dataset)):
        sample = dataset[k]
        for corner in corners:
            structures.append(
                Microstructure(
                    sample.phases[tuple(slice(o, o + crop) for o in corner)],
                    voxel_size_um=dataset.voxel_size_um,
                    periodic=(False,),
                    process=sample.process,
                    phase_names=dataset.phase_names,
                )
            )
            specimens.append(dataset.specimens[k])
            sources.append(dataset.sources[k])
    return MicrostructureDataset.from_structures(
        structures, dataset.space, specimens=specimens, sources=sources
    )


def generated_phases(
    generator: ConditionalGenerator,
    processes: Sequence[Mapping[str, Any]],
    *,
    n: int,
    shape: Sequence[int],
    seed: int,
) -> list[Microstructure]:
    """Return n structures of each process, of the size of the pictures."""
    return list(generator.sample(list(processes), n=n, shape=shape, seed=seed))


def naive_micrographs(
    structures: Pictures, training: Pictures, *, seed: int
) -> list[Microstructure]:
    """Return the usual stand-in: every phase at its mean grey, with white noise of its deviation.

    Means and deviations are those of the training pictures of the same process, standardised
    picture by picture.
    """
    made = []
    for k, structure in enumerate(structures):
        like = [p for p in training if p.process == structure.process] or list(training)
        grey = np.stack([standardised(p.channels[GREY]) for p in like])
        labels = np.stack([p.phases for p in like])
        random = np.random.default_rng(derive_seed(seed, "naive", k))
        noise = random.standard_normal(structure.shape)
        drawn = np.zeros(structure.shape)
        for phase in range(structure.n_phases):
            values = grey[labels == phase]
            here = structure.phases == phase
            drawn[here] = values.mean() + values.std() * noise[here]
        levels = np.rint(128 + 32 * drawn).clip(0, 255).astype(np.uint8)
        made.append(structure.with_channels(**{GREY: levels}))
    return made
