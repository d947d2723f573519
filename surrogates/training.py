"""Training the field surrogate on the solver's own answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor, nn

from microstructures import MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train
from physics.mechanics.staggered import StaggeredElasticity
from surrogates.bracket_place import MIDDLE, fitted_place
from surrogates.displacement_net import DisplacementNet
from surrogates.fields import FieldSurrogate
from surrogates.labels import (
    LabelledCells,
    coarsened,
    solved_labels,
    training_cells,
    unsolved_labels,
)
from surrogates.material_settings import MaterialSettings
from surrogates.operators import ConvolutionalSettings, FourierSettings, OperatorSettings
from surrogates.quantities import Stiffness
from surrogates.reference import ReferencedCells
from surrogates.symmetries import augmented

SMALLEST_EXCESS = 1e-7  # round-off of a float32 energy
NET_SETTINGS = {
    *("training", "steps", "iterations", "operator", "half", "coarser"),
    *("modes", "width", "layers"),
    *("widths", "blocks", "features"),
}
"""Settings that the solver's labels do not depend on."""


class SurrogateSettings(MaterialSettings):
    """Net, materials and training of a field surrogate."""

    operator: Literal["fno", "unet"] = Field("fno", description="what predicts the strain")
    modes: int = Field(16, ge=2, multiple_of=2, description="FNO: modes kept along each axis")
    width: int = Field(32, ge=1, description="FNO: hidden channels")
    layers: int = Field(4, ge=1, description="FNO: Fourier layers")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (48, 64, 96), min_length=1, description="U-Net: channels per level"
    )
    blocks: int = Field(1, ge=1, description="U-Net: residual blocks per level")
    features: int = Field(64, ge=4, description="U-Net: length of the condition vector")
    steps: int = Field(2, ge=1, description="Lippmann-Schwinger steps after the net")
    iterations: int = Field(
        0,
        ge=0,
        description="conjugate-gradient iterations after which the loss looks at the answer again",
    )
    tolerance: float = Field(1e-4, gt=0, lt=1, description="residual of the solver's labels")
    labels: bool = Field(
        True, description="learn from the solver's answers; false: from the energy alone"
    )
    coarser: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="also train on the cells at 1/2, 1/4, ... of their resolution: 2, 4, ..."
    )
    half: bool = Field(True, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings.model_validate(
        {"steps": 4000, "learning_rate": 3e-3}
    )

    @property
    def net(self) -> OperatorSettings:
        """The operator's own settings."""
        if self.operator == "unet":
            return ConvolutionalSettings(
                widths=self.widths, blocks=self.blocks, features=self.features
            )
        return FourierSettings(modes=self.modes, width=self.width, layers=self.layers)


def train_field_surrogate(
    dataset: MicrostructureDataset,
    settings: SurrogateSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> FieldSurrogate:
    """Train a field surrogate and save it in `out`; repeat the call to resume.

    Labels are solved once and kept in `OUT.labels-SIDES`, checkpoints lie in `OUT.checkpoints`.

    Raises:
        DataError: The cells are not periodic, hold one phase, or have sides that do not fit.
        ConvergenceError: Training diverged.
    """
    out, seed = Path(out), settings.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = DisplacementNet(dim=len(dataset.shape), steps=settings.steps, operator=settings.net)
    net.check_shape(dataset.shape)
    phases = training_cells(dataset, random_fields=settings.random_fields, seed=seed)
    identity = {"settings": settings.model_dump(mode="json"), "data": dataset.digest}
    resolutions = [phases, *(coarsened(phases, factor) for factor in settings.coarser)]
    labels = [_labels(cells, dataset, settings, out) for cells in resolutions]
    objective: nn.Module = LeastEnergyObjective(net)
    if settings.labels:
        objective = EnergyObjective(net, settings.iterations)
    state = train(
        objective,
        BatchDraw(labels),
        n_samples=len(phases),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity=identity,
        progress=progress,
    )
    objective.load_state_dict(state)
    place = fitted_place(net.eval(), labels[0]) if settings.labels else MIDDLE
    surrogate = FieldSurrogate(net, labels[0].familiarity(), place)
    surrogate.save_pretrained(out, card=card, half=settings.half)
    return surrogate


def _labels(
    phases: UInt8[Tensor, "cell *space"],
    dataset: MicrostructureDataset,
    settings: SurrogateSettings,
    out: Path,
) -> LabelledCells:
    seed = settings.training.seed
    if not settings.labels:
        return unsolved_labels(
            phases, Stiffness(), settings.materials, n_phases=dataset.n_phases, seed=seed
        )
    sides = "x".join(str(side) for side in phases.shape[1:])
    return solved_labels(
        phases,
        Stiffness(),
        settings.materials,
        out.with_name(f"{out.name}.labels-{sides}"),
        n_phases=dataset.n_phases,
        tolerance=settings.tolerance,
        seed=seed,
        identity={
            "data": dataset.digest,
            "seed": seed,
            **settings.model_dump(mode="json", exclude=NET_SETTINGS),
        },
    )


class BatchDraw:
    """Draw cells, shifted, mirrored and turned at random, with their stiffness.

    Each batch is of one resolution, drawn from those at hand.
    """

    def __init__(self, labels: Sequence[LabelledCells]) -> None:
        self.labels = list(labels)

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        which = int(torch.randint(len(self.labels), (), generator=generator))
        labels = self.labels[which]
        phases, stiffness = augmented(
            labels.phases[batch],
            labels.effective[batch],
            quantity=labels.quantity,
            generator=generator,
        )
        referenced = labels.cells(batch, phases)
        cells = referenced.cells
        return [cells.lame, cells.shear, referenced.lame, stiffness]


class EnergyObjective(nn.Module):
    """Distance of the net's strain to the solver's in the energy norm, relative, all loads.

    With C the energy matrix of the net's displacement and C* that of the solver's, the mean over
    macroscopic strains (orthonormal in C*) of the squared relative error is tr(C*^-1 C)/n - 1.

    With `iterations` it is the mean of that distance and of the one that is left after as many
    conjugate-gradient iterations of the solver, so that the net learns first what these leave.
    """

    def __init__(self, net: DisplacementNet, iterations: int = 0) -> None:
        super().__init__()
        self.net, self.iterations = net, iterations

    def forward(
        self, lame: Tensor, shear: Tensor, reference: Tensor, stiffness: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        cells = ReferencedCells(StaggeredElasticity(lame, shear, 1.0), reference)
        raw = self.net(cells)
        error = _energy_error(cells, raw, stiffness)
        numbers = {"energy_error": error.detach()}
        if not self.iterations:
            return error, numbers
        with torch.autocast(lame.device.type, enabled=False):
            later = cells.descended(raw.float(), self.iterations)
        left = _energy_error(cells, later, stiffness)
        return (error + left) / 2, {**numbers, "iterated_error": left.detach()}


class LeastEnergyObjective(nn.Module):
    """The energy of the net's strain itself, which the solution makes least: no labels.

    Relative to the energy after the solver's first step, tr(U^-1 C)/n, so that every cell and
    load counts alike; what the least value is stays unknown.
    """

    def __init__(self, net: DisplacementNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, lame: Tensor, shear: Tensor, reference: Tensor, bound: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        cells = ReferencedCells(StaggeredElasticity(lame, shear, 1.0), reference)
        energy = _relative_energy(cells, self.net(cells), bound).mean().float()
        return energy, {"relative_energy": energy.detach()}


def _energy_error(cells: ReferencedCells, displacement: Tensor, stiffness: Tensor) -> Tensor:
    excess = _relative_energy(cells, displacement, stiffness) - 1
    return excess.clamp_min(SMALLEST_EXCESS).sqrt().mean().float()


def _relative_energy(cells: ReferencedCells, displacement: Tensor, matrix: Tensor) -> Tensor:
    with torch.autocast(displacement.device.type, enabled=False):
        energy = cells.energy(displacement)
    ratio = torch.linalg.solve(matrix.double(), energy.double())
    return ratio.diagonal(dim1=1, dim2=2).mean(1)
