"""What a dataset must hold before a generator learns from it."""

from collections.abc import Sequence

import torch

from microstructures import DataError
from microstructures.dataset import MicrostructureDataset

FEWEST = 4


def check_training_data(dataset: MicrostructureDataset, *, fine_tuned: bool = False) -> None:
    """Raise where a generator would learn nothing, or something else than its window says.

    A dataset without process parameters is fine: the model is then asked with `{}`. Crops count
    as the map that they come from. Fine-tuned weights know the window already, so that one value
    of a parameter is enough.

    Raises:
        DataError: Fewer than four samples or imported maps, one phase only, or a process
            parameter with a single value: the model's window would claim all of its range.
    """
    sources = len(set(dataset.sources)) if "import" in dataset.about else len(dataset)
    if sources < FEWEST:
        what = "imported maps" if "import" in dataset.about else "samples"
        raise DataError(
            f"expected at least {FEWEST} {what} to train a generator, got {sources}; a generator "
            "of fewer knows them by heart and nothing between them, add more"
        )
    present = torch.unique(dataset.phases).tolist()
    if len(present) < 2:
        raise DataError(
            f"expected at least two phases in the training data, got only "
            f"{dataset.phase_names[present[0]]!r}; check the labels of the maps"
        )
    for k, parameter in enumerate(dataset.space):
        known = dataset.process_units[:, k]
        values = known[~known.isnan()].unique().tolist()
        if len(values) < 2 and not fine_tuned:
            got = f"only {parameter.from_unit(values[0])}" if values else "none"
            raise DataError(
                f"expected at least two values of {parameter.name} in the training data, got "
                f"{got}; leave the parameter out when the data is made, or add other samples"
            )


def check_training_sides(shape: Sequence[int], multiple: int) -> None:
    """Refuse cells that a net cannot take whole.

    Raises:
        DataError: A side is no multiple of what the net needs.
    """
    if any(side % multiple for side in shape):
        raise DataError(
            f"expected cells whose sides are multiples of {multiple}, got {tuple(shape)}; use "
            "fewer widths or another crop"
        )
