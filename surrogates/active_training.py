"""Training a property surrogate on few labels, each batch of them picked by the net before."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from microstructures import MicrostructureDataset
from microstructures.publishing import MANIFEST, open_verified, publish_folder
from microstructures.seeds import derive_seed, generator_for
from networks.training import Progress, train
from physics.mechanics.cells import MAX_ITERATIONS
from physics.mechanics.effective import effective_property
from surrogates.active_learning import PredictedSpread, cell_features
from surrogates.labels import LabelledCells, training_cells, unsolved_labels
from surrogates.learning_rounds import picked_in_rounds, round_sizes
from surrogates.pooled_net import PooledNet
from surrogates.properties import PropertySurrogate
from surrogates.property_training import (
    PropertyDraw,
    PropertyObjective,
    PropertySettings,
    calibrated,
    property_labels,
)
from surrogates.quantities import local_moduli, quantity_named
from surrogates.spread_fit import fit_spread

KIND = "solved-cells"


class ActiveSettings(BaseModel):
    """How many cells are labelled, and in how many rounds they are picked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    labels: int = Field(512, ge=2, description="cells labelled in all, calibration apart")
    first: int = Field(64, ge=1, description="cells of the first round, drawn at random")
    rounds: int = Field(5, ge=2, description="rounds of labelling; a net is trained after each")

    @property
    def sizes(self) -> list[int]:
        """Labelled cells after each round.

        Raises:
            DataError: The numbers do not fit together.
        """
        return round_sizes(self.first, self.labels, self.rounds)


class ActivePropertySettings(PropertySettings):
    """Net, materials and training of a property surrogate, and how many labels it may ask for."""

    active: ActiveSettings = ActiveSettings.model_validate({})


def train_actively(
    dataset: MicrostructureDataset,
    settings: ActivePropertySettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> PropertySurrogate:
    """Train a property surrogate on the cells of a pool that it asks for; repeat to resume.

    Every cell of the pool has materials drawn for it, as in `train_property_surrogate`, and no
    label. The first cells are drawn at random and solved; after each round a net is trained from
    scratch on all labels, and the next cells are drawn by its spread (`next_cells`). The interval
    is calibrated on further cells drawn at random, `held_out` times the labels: those that were
    picked are unlike the pool. Picks lie in `OUT.picks`, labels in `OUT.labels`, checkpoints in
    `OUT.checkpoints`.

    Raises:
        DataError: The pool does not fit the net, or has too few cells for the labels.
        ConvergenceError: Training diverged.
    """
    out, sizes, seed = Path(out), settings.active.sizes, settings.training.seed
    identity = {"settings": settings.model_dump(mode="json"), "data": dataset.digest}
    trained, held_out = dataset.split(settings.held_out, seed=seed)
    order = torch.randperm(len(held_out), generator=generator_for(seed, "calibration"))
    few = held_out.subset(order[: round(settings.held_out * settings.active.labels)])
    known = property_labels([few], settings, _beside(out, "calibration"), part=1)
    pool = _pool(trained, settings)
    solve = partial(_solved, pool, sizes, settings.tolerance, _beside(out, "labels"), identity)

    def net_of(rows: Tensor) -> PooledNet:
        place = _beside(out, "checkpoints") / f"labels-{len(rows):06d}"
        return trained_net(solve(rows), settings, place, identity=identity, progress=progress)

    def learn(rows: Tensor) -> Tensor:
        return PredictedSpread(_uncalibrated(net_of(rows), pool))(pool)

    rows = picked_in_rounds(
        learn,
        cell_features(pool),
        sizes,
        seed=seed,
        folder=_beside(out, "picks"),
        identity=identity,
    )
    net = net_of(rows)
    fit_spread(net, solve(rows), seed=seed)
    if settings.half:
        net.half().float()  # calibrate the weights as they are stored
    margins = calibrated(net, known, confidence=settings.confidence)
    surrogate = PropertySurrogate(net, solve(rows).familiarity(), margins)
    surrogate.save_pretrained(out, card=card, half=settings.half)
    return surrogate


def trained_net(
    labels: LabelledCells,
    settings: PropertySettings,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    progress: Progress | None = None,
) -> PooledNet:
    """Return a net trained from scratch on labelled cells; checkpoints lie in the folder.

    Its spread is the one that it learnt beside its answer, not fitted afterwards (`fit_spread`).

    Raises:
        DataError: The cells' sides do not fit the net.
        ConvergenceError: Training diverged.
    """
    seed = settings.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = PooledNet(
            quantity=settings.quantity,
            dim=labels.phases.ndim - 1,
            widths=settings.widths,
            features=settings.features,
            steps=settings.steps,
            members=settings.members,
        )
    net.check_shape(labels.phases.shape[1:])
    objective = PropertyObjective(net)
    state = train(
        objective,
        PropertyDraw(labels),
        n_samples=len(labels),
        settings=settings.training,
        folder=folder,
        identity=identity,
        progress=progress,
    )
    objective.load_state_dict(state)
    return net


def solved_rows(pool: LabelledCells, rows: Tensor, *, tolerance: float) -> LabelledCells:
    """Return cells of a pool with the solver's matrices, in the unit of their moduli."""
    phases, moduli = pool.phases[rows], pool.moduli[rows]
    found = effective_property(
        pool.quantity.problem(local_moduli(phases, moduli.double())),
        displacement=None,
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        dtype=torch.float32,
        lower=False,
    )
    return LabelledCells(phases, moduli, found.value.float(), pool.quantity)


def _solved(
    pool: LabelledCells,
    sizes: Sequence[int],
    tolerance: float,
    folder: Path,
    identity: Mapping[str, Any],
    rows: Tensor,
) -> LabelledCells:
    """Return labelled rows of a pool, round by round: those that the folder has are read."""
    parts = []
    for start, end in pairwise([0, *(size for size in sizes if size <= len(rows))]):
        own, place = rows[start:end].contiguous(), folder / f"labels-{start:06d}-{end:06d}"
        if not (place / MANIFEST).exists():
            cells = solved_rows(pool, own, tolerance=tolerance)
            tensors = {"effective": cells.effective.contiguous(), "rows": own}
            publish_folder(place, partial(_write, tensors), kind=KIND, about=dict(identity))
        open_verified(place, kind=KIND)
        kept = load_file(place / "labels.safetensors")["effective"]
        parts.append(LabelledCells(pool.phases[own], pool.moduli[own], kept, pool.quantity))
    return LabelledCells.joined(parts)


def _write(tensors: dict[str, Tensor], folder: Path) -> None:
    save_file(tensors, folder / "labels.safetensors")


def _pool(dataset: MicrostructureDataset, settings: PropertySettings) -> LabelledCells:
    seed = derive_seed(settings.training.seed, "labels", 0)
    phases = training_cells(
        dataset,
        random_fields=settings.random_fields,
        seed=seed,
        as_periods=settings.as_periods,
    )
    return unsolved_labels(
        phases,
        quantity_named(settings.quantity),
        settings.materials,
        n_phases=dataset.n_phases,
        seed=seed,
    )


def _uncalibrated(net: PooledNet, pool: LabelledCells) -> PropertySurrogate:
    """Return a surrogate whose interval is never asked: its spread picks cells as it is."""
    n = net.n
    few = torch.arange(min(len(pool), 64))
    return PropertySurrogate(net, pool.rows(few).familiarity(), torch.ones(n, n))


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.name}.{name}")
