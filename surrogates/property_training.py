"""Training the property surrogate on the solver's effective matrices, and calibrating it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from microstructures import DataError, MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train
from surrogates.labels import LabelledCells, solved_labels, training_cells
from surrogates.material_settings import MaterialSettings
from surrogates.pooled_net import PooledNet
from surrogates.properties import PropertySurrogate, combined
from surrogates.quantities import Name, quantity_named
from surrogates.spread_fit import fit_spread
from surrogates.symmetries import augmented

SPREAD_WEIGHT = 0.01  # against the error, whose own heads the spread's do not touch
CELLS_AT_ONCE = 64


class PropertySettings(MaterialSettings):
    """Net, materials and training of a property surrogate."""

    quantity: Name = Field("stiffness", description="effective property to learn")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 48, 64), min_length=1, description="channels per level"
    )
    features: int = Field(64, ge=4, description="pooled features")
    steps: int = Field(1, ge=1, le=8, description="solver steps taken first")
    members: int = Field(3, ge=1, description="nets of the ensemble")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="residual of the solver's labels")
    as_periods: bool = Field(
        False, description="take cells that are not periodic as one period, seams and all"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of specimens for the calibration")
    confidence: float = Field(0.9, gt=0, lt=1, description="share that the interval covers")
    half: bool = Field(True, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings.model_validate(
        {"steps": 3000, "learning_rate": 2e-3}
    )


def train_property_surrogate(
    dataset: MicrostructureDataset,
    settings: PropertySettings,
    out: str | Path,
    *,
    others: Sequence[MicrostructureDataset] = (),
    progress: Progress | None = None,
    card: str = "",
) -> PropertySurrogate:
    """Train a property surrogate and save it in `out`; repeat the call to resume.

    It learns from the cells of `dataset` and, if given, `others`, whatever made them. A share of
    the specimens is kept from training; on it the interval is scaled until it covers
    what was asked. Labels are solved once and kept in `OUT.labels`, checkpoints lie in
    `OUT.checkpoints`.

    Raises:
        DataError: The cells are not periodic, hold one phase, have sides that do not fit, or
            differ in sides or number of phases between data sets.
        ConvergenceError: Training diverged.
    """
    out, seed = Path(out), settings.training.seed
    parts = [dataset, *others]
    _check_alike(parts)
    dim = len(dataset.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = PooledNet(
            quantity=settings.quantity,
            dim=dim,
            widths=settings.widths,
            features=settings.features,
            steps=settings.steps,
            members=settings.members,
        )
    net.check_shape(dataset.shape)
    splits = [part.split(settings.held_out, seed=seed) for part in parts]
    trained, held_out = zip(*splits, strict=True)
    labels = property_labels(trained, settings, out.with_name(out.name + ".labels"), part=0)
    known = property_labels(held_out, settings, out.with_name(out.name + ".calibration"), part=1)
    objective = PropertyObjective(net)
    state = train(
        objective,
        PropertyDraw(labels),
        n_samples=len(labels),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(mode="json"), "data": _digest(parts)},
        progress=progress,
    )
    objective.load_state_dict(state)
    fit_spread(net, labels, seed=seed)
    if settings.half:
        net.half().float()  # calibrate the weights as they are stored
    margins = calibrated(net, known, confidence=settings.confidence)
    surrogate = PropertySurrogate(net, labels.familiarity(), margins)
    surrogate.save_pretrained(out, card=card, half=settings.half)
    return surrogate


def property_labels(
    datasets: Sequence[MicrostructureDataset],
    settings: PropertySettings,
    folder: Path,
    *,
    part: int,
) -> LabelledCells:
    """Return the cells of data sets with drawn materials and the solver's matrices.

    `part` keeps the materials and random fields of training (0) and calibration (1) apart; the
    random fields are shared out by the held-out share.
    """
    share = settings.held_out if part else 1 - settings.held_out
    seed = derive_seed(settings.training.seed, "labels", part)
    random_fields = [round(share * settings.random_fields)] + [0] * (len(datasets) - 1)
    phases = torch.cat(
        [
            training_cells(dataset, random_fields=count, seed=seed, as_periods=settings.as_periods)
            for dataset, count in zip(datasets, random_fields, strict=True)
        ]
    )
    solver = {*MaterialSettings.model_fields, "quantity", "tolerance", "held_out", "as_periods"}
    return solved_labels(
        phases,
        quantity_named(settings.quantity),
        settings.materials,
        folder,
        n_phases=datasets[0].n_phases,
        tolerance=settings.tolerance,
        seed=seed,
        identity={
            "data": _digest(datasets),
            "seed": seed,
            **settings.model_dump(mode="json", include=solver),
        },
    )


class PropertyDraw:
    """Draw cells, shifted, mirrored and turned at random, with their effective matrix."""

    def __init__(self, labels: LabelledCells) -> None:
        self.labels = labels

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        phases, effective = augmented(
            self.labels.phases[batch],
            self.labels.effective[batch],
            quantity=self.labels.quantity,
            generator=generator,
        )
        return [self.labels.fields(batch, phases), effective]


class PropertyObjective(nn.Module):
    """Relative error of the matrix, mean over members, and the likelihood of its share's entries.

    The error is the Frobenius norm of C*^-1/2 (C - C*) C*^-1/2 over sqrt(n): every load counts
    relative to its own energy.
    """

    def __init__(self, net: PooledNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, moduli: Tensor, effective: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            channels, numbers, steps = self.net.described(moduli)
            actual = steps.interval.share(effective)
        errors, scores = [], []
        for member in range(len(self.net.members)):
            found = self.net.estimate(member, channels, numbers, steps)
            errors.append(relative_error(steps.interval.at(found.mean), effective).mean())
            off = (actual - found.mean).detach() / found.log_spread.exp()
            scores.append((0.5 * off.square() + found.log_spread).mean())
        error = torch.stack(errors).mean()
        total = error + SPREAD_WEIGHT * torch.stack(scores).mean()
        return total.float(), {"relative_error": error.detach()}


def relative_error(
    found: Float[Tensor, "batch n n"], actual: Float[Tensor, "batch n n"]
) -> Float[Tensor, " batch"]:
    """Return |C*^-1/2 (C - C*) C*^-1/2| / sqrt(n): the RMS relative error over all loads."""
    factor = torch.linalg.cholesky(actual.double())
    half = torch.linalg.solve_triangular(factor, found.double() - actual.double(), upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    return whitened.flatten(1).norm(dim=1) / math.sqrt(actual.shape[-1])


@torch.no_grad()
def calibrated(net: PooledNet, labels: LabelledCells, *, confidence: float) -> Float[Tensor, "n n"]:
    """Return by how much each entry's standard deviation is to be multiplied.

    The empirical quantile of |error| / deviation over held-out cells at the share that makes the
    expected coverage of a new cell `confidence` (split conformal prediction; Lei et al. 2018).

    Raises:
        DataError: Too few held-out cells for that confidence.
    """
    net.eval()
    least = math.ceil(confidence / (1 - confidence))
    if len(labels) < least:
        raise DataError(
            f"expected at least {least} held-out cells to calibrate an interval of {confidence:g}, "
            f"got {len(labels)}; give more data or a larger held_out"
        )
    scores = []
    for rows in torch.arange(len(labels)).split(CELLS_AT_ONCE):
        value, spread = combined(net(labels.fields(rows, labels.phases[rows])))
        scores.append((value - labels.effective[rows]).abs() / spread)
    ranked = torch.cat(scores).sort(0).values
    place = math.ceil(confidence * (len(labels) + 1)) - 1
    return ranked[place]


def _digest(datasets: Sequence[MicrostructureDataset]) -> str:
    return "+".join(dataset.digest for dataset in datasets)


def _check_alike(datasets: Sequence[MicrostructureDataset]) -> None:
    """Raise DataError where data sets differ in what one net cannot take together."""
    first = datasets[0]
    for other in datasets[1:]:
        if (other.shape, other.n_phases) != (first.shape, first.n_phases):
            raise DataError(
                f"expected data sets of one shape and number of phases, got {first.shape} with "
                f"{first.n_phases} and {other.shape} with {other.n_phases}; leave one out or "
                "resample it"
            )
