"""Is a generated structure a copy of a training image? The part of the fidelity report on it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from generators.held_out_distance import map_names
from generators.microbench_memorisation import (
    Memorisation,
    Nearest,
    TrainingImages,
    memorisation,
)
from microstructures import DataError, MicrostructureDataset
from studies.figures import draw_map, drawing

MOST_REAL = 1024
PAIRS = 4


@dataclass(frozen=True)
class Copies:
    """Generated structures and the training images nearest to them (MicroBench M9).

    Args:
        found: Threshold, share above it, counts.
        made: Nearest training image of every generated structure.
        median_made: Median correlation of generated structures with their nearest.
        median_real: The same of real structures that training did not hold.
        other_maps: Whether those are training images against the images of other maps.
    """

    found: Memorisation
    made: Nearest
    median_made: float
    median_real: float
    other_maps: bool

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        medians = {"median_generated": self.median_made, "median_real": self.median_real}
        return {**asdict(self.found), **medians, "against_other_maps": self.other_maps}

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        real = "training images against those of other maps" if self.other_maps else "held-out"
        found = self.found
        return (
            f"{100 * found.share:.2g} % of {found.samples} generated structures are nearer to a "
            f"training image than the 99.9 % quantile ({found.threshold:.3f}) of {found.held_out} "
            f"real ones ({real}); median correlation with the nearest training image: generated "
            f"{self.median_made:.3f}, real {self.median_real:.3f}, highest generated "
            f"{found.highest:.3f} (1 is a copy)"
        )


def find_copies(
    generated: Integer[Tensor, "made *space"],
    real: MicrostructureDataset,
    training: MicrostructureDataset,
) -> Copies:
    """Compare generated structures with the training images, real ones giving the measure.

    Real structures from maps that training holds are compared with the images of the other maps
    only, since crops of one map overlap.

    Raises:
        DataError: Training images have another shape or number of phases, or all real ones are of
            one map that is also the only one of the training.
    """
    if training.shape != tuple(generated.shape[1:]) or training.n_phases != real.n_phases:
        raise DataError(
            f"expected training data of shape {tuple(generated.shape[1:])} and {real.n_phases} "
            f"phases, got {training.shape} and {training.n_phases}; give the model's own"
        )
    made = TrainingImages(training.phases, training.n_phases).nearest(generated)
    rows = np.linspace(0, len(real) - 1, min(MOST_REAL, len(real))).round().astype(int)
    theirs, shared = _nearest_of_others(real, rows, training)
    return Copies(
        memorisation(made.correlation, theirs),
        made,
        float(np.median(made.correlation)),
        float(np.median(theirs)),
        shared,
    )


def _nearest_of_others(
    real: MicrostructureDataset, rows: np.ndarray, training: MicrostructureDataset
) -> tuple[np.ndarray, bool]:
    """Return the nearest correlations of real samples with training images of other maps."""
    ours, theirs = (_maps(part) for part in (training, real))
    found, shared = [], False
    for name in sorted({theirs[k] for k in rows}):
        own = [int(k) for k in rows if theirs[k] == name]
        others = np.flatnonzero([other != name for other in ours])
        shared = shared or len(others) < len(ours)
        if len(others) == 0:
            continue
        images = TrainingImages(training.phases[torch.from_numpy(others)], training.n_phases)
        found.append(images.nearest(real.phases[torch.tensor(own)]).correlation)
    if not found:
        raise DataError(
            "expected real structures of another map than the only one of the training data; "
            "memorisation cannot be told from likeness within one map"
        )
    return np.concatenate(found), shared


def _maps(dataset: MicrostructureDataset) -> list[str]:
    return list(map_names(dataset) or dataset.specimens)


def nearest_figure(
    generated: Integer[Tensor, "made *space"],
    training: MicrostructureDataset,
    copies: Copies,
) -> str:
    """Return the generated structures most like a training image, above those images.

    It shows training images: keep it where their licence allows.
    """
    order = np.argsort(-copies.made.correlation)[:PAIRS]
    options: dict[str, Any] = {
        "voxel_size_um": training.voxel_size_um,
        "cmap": "cividis",
        "vmin": 0,
        "vmax": max(training.n_phases - 1, 1),
    }
    with drawing(len(order), 2, width=2.05 * len(order) + 0.5, height=4.6) as made:
        for column, k in zip(made.axes.T, order, strict=True):
            title = f"generated, {copies.made.correlation[k]:.2f}"
            draw_map(column[0], generated[int(k)].numpy(), title=title, **options)
            nearest = training.phases[int(copies.made.index[k])].numpy()
            draw_map(column[1], nearest, title="nearest training image", **options)
        for axis in made.axes.flat:
            axis.label_outer()
        return made.data_uri()
