"""Label, learn, pick: the rounds of active learning, each kept so that a loop resumes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from microstructures import DataError
from microstructures.publishing import MANIFEST, open_verified, publish_folder
from microstructures.seeds import generator_for
from surrogates.active_learning import next_cells

KIND = "active-learning-round"

Learn = Callable[[Int[Tensor, " known"]], Float[Tensor, " cell"]]
"""Labels the cells of these rows, learns from them, and returns the doubt of every cell."""


def round_sizes(first: int, labels: int, rounds: int) -> list[int]:
    """Return how many cells are labelled after each round, growing by a constant factor.

    >>> round_sizes(32, 256, 4)
    [32, 64, 128, 256]

    Raises:
        DataError: The numbers do not grow from round to round.
    """
    if not (1 <= first < labels and 2 <= rounds <= labels - first + 1):
        raise DataError(
            f"expected more labels in all than in the first round, and no more rounds than picks, "
            f"got {first} of {labels} in {rounds} rounds"
        )
    ratio = (labels / first) ** (1 / (rounds - 1))
    sizes = [first]
    for k in range(1, rounds):
        # Every round picks at least one cell, and leaves one for each round to come.
        size = max(round(first * ratio**k), sizes[-1] + 1)
        sizes.append(min(size, labels - (rounds - 1 - k)))
    return sizes


def picked_in_rounds(
    learn: Learn,
    features: Float[Tensor, "cell entry"],
    sizes: Sequence[int],
    *,
    seed: int,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
) -> Int[Tensor, " known"]:
    """Return the rows that a loop of learning and picking labels, in the order of the picks.

    The first are drawn at random, each further round by `next_cells` with the doubt that `learn`
    returned of those before. Whoever calls learns from the last ones.

    Args:
        learn: Called once a round with all rows that are known by then.
        features: In which cells are alike (`cell_features`).
        sizes: Labelled cells after each round (`round_sizes`).
        seed: Of all draws.
        folder: Where picks are kept; repeated on it, a loop goes on where it ended.
        identity: What the picks belong to; those of another identity are refused.

    Raises:
        DataError: The pool is too small, or the folder holds picks of another loop.
    """
    if sizes[-1] > len(features):
        raise DataError(
            f"expected a pool of at least {sizes[-1]} cells to label so many, got {len(features)}"
        )
    order = torch.randperm(len(features), generator=generator_for(seed, "first cells"))
    known = _kept(folder, 0, identity, lambda: order[: sizes[0]])
    for k, size in enumerate(sizes[1:], start=1):

        def picked(known: Tensor = known, size: int = size) -> Tensor:
            count = size - len(known)
            return next_cells(learn(known), features, count, known=known, seed=seed)

        known = torch.cat([known, _kept(folder, k, identity, picked)])
    return known


def _kept(
    folder: Path | None, k: int, identity: dict[str, Any] | None, pick: Callable[[], Tensor]
) -> Tensor:
    """Return the picks of a round from the folder, else by picking."""
    if folder is None:
        return pick()
    place = folder / f"round-{k:03d}"
    about = json.loads(json.dumps(identity or {}))
    if (place / MANIFEST).exists():
        if open_verified(place, kind=KIND) != about:
            raise DataError(
                f"expected {folder} to hold the picks of these cells and settings, found others; "
                "choose another output folder"
            )
        return load_file(place / "picks.safetensors")["rows"]
    rows = pick().contiguous()
    publish_folder(
        place,
        lambda partial: save_file({"rows": rows}, partial / "picks.safetensors"),
        kind=KIND,
        about=about,
    )
    return rows
