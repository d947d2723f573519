"""The part of a data set that a model is trained on: a narrower window, or all but a cell of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from generators.microbench_held_out import inside_ranges
from microstructures import DataError, MicrostructureDataset

Ranges = Mapping[str, Sequence[float]]


def training_part(
    dataset: MicrostructureDataset, *, window: Ranges, held_out: Ranges
) -> MicrostructureDataset:
    """Return the samples to train on, the data set itself when nothing is said.

    Args:
        dataset: All samples.
        window: Narrower ranges, name to (low, high). Samples outside are left out, and the
            model's process window ends there: beyond it the model extrapolates, and says so.
        held_out: A cell of the window, name to (low, high). Samples inside all of these ranges
            are left out, and the model may be asked there like anywhere (MicroBench M11).

    Raises:
        DataError: A name is unknown, a range leaves the window, or no samples are left on one
            of the sides.
    """
    if not (window or held_out):
        return dataset
    space = dataset.space.narrowed(window)
    space.narrowed(held_out)
    points = [dataset[k].process for k in range(len(dataset))]
    kept = inside_ranges(points, window)
    left_out = inside_ranges(points, held_out) if held_out else np.zeros(len(points), bool)
    if held_out and not (kept & left_out).any():
        raise DataError(f"expected samples to hold out in {_words(held_out)}, found none")
    if not (kept & ~left_out).any():
        raise DataError(
            f"expected samples to train on, found none in {_words(window) or 'the window'} and "
            f"outside {_words(held_out)}; choose wider ranges"
        )
    return dataset.subset(np.flatnonzero(kept & ~left_out), space=space)


def _words(ranges: Ranges) -> str:
    return ", ".join(f"{name}={low:g}:{high:g}" for name, (low, high) in ranges.items())
