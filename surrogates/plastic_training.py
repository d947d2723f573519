"""Training the path surrogate on the solver's own answers."""

from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from microstructures import MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train
from surrogates.labels import training_cells
from surrogates.plastic_cells import PlasticCells, voxel_moduli
from surrogates.plastic_labels import PlasticLabels, PlasticRange, solved_plastic_labels
from surrogates.plastic_net import PathAnswer, PathNet
from surrogates.plastic_path import PlasticSurrogate
from surrogates.plastic_return import in_plane_basis, returned, von_mises_of, whole_basis
from surrogates.plastic_start import SecantStart
from surrogates.symmetries import turned

LOWEST_SHARE = 0.1  # of a cell's mean von Mises stress: voxels below it count as that
WEIGHTS = {"direction": 0.5, "pressure": 0.3, "mean": 0.5, "strain": 0.1}
"""Of the loss's parts beside the error of von Mises stress."""

NET_SETTINGS = {"training", "widths", "blocks", "features", "half"}
"""Settings that the solver's labels do not depend on."""


class PlasticSettings(BaseModel):
    """Net, materials, tests and training of a path surrogate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    modulus_contrast: float = Field(3.0, ge=1, description="largest ratio of shear moduli")
    yield_contrast: float = Field(4.0, ge=1, description="largest ratio of yield stresses")
    lowest_hardening: float = Field(0.005, gt=0, description="plastic over Young's modulus from")
    highest_hardening: float = Field(0.05, gt=0, description="plastic over Young's modulus to")
    lowest_poisson_ratio: float = Field(0.25, gt=-1, lt=0.5, description="Poisson's ratios from")
    highest_poisson_ratio: float = Field(0.35, gt=-1, lt=0.5, description="Poisson's ratios to")
    lowest_amplitude: float = Field(
        2.0, gt=0, description="largest strain of a test over the mean yield strain, from"
    )
    highest_amplitude: float = Field(
        10.0, gt=0, description="largest strain of a test over the mean yield strain, to"
    )
    random_fields: int = Field(
        200, ge=0, description="random-field cells added to the data (two phases)"
    )
    path_steps: int = Field(8, ge=2, description="steps of a test")
    iterations: int = Field(2, ge=1, description="iterations of each linear start problem")
    sweeps: int = Field(3, ge=0, description="secant sweeps of the start")
    tolerance: float = Field(1e-3, gt=0, le=1e-2, description="residual of the solver's labels")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (24, 32, 48), min_length=1, description="channels per level"
    )
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    features: int = Field(64, ge=4, description="length of the condition vector")
    half: bool = Field(True, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings.model_validate(
        {"steps": 8000, "batch_size": 8, "learning_rate": 2e-3}
    )

    @model_validator(mode="after")
    def _ordered(self) -> "PlasticSettings":
        for name in ("hardening", "poisson_ratio", "amplitude"):
            low, high = getattr(self, f"lowest_{name}"), getattr(self, f"highest_{name}")
            if low > high:
                raise ValueError(f"lowest_{name} {low} is above highest_{name} {high}")
        return self

    @property
    def start(self) -> SecantStart:
        """How the net's start is solved."""
        return SecantStart(self.iterations, self.sweeps)

    @property
    def materials(self) -> PlasticRange:
        """What materials and tests are drawn from."""
        return PlasticRange(
            self.modulus_contrast,
            self.yield_contrast,
            (self.lowest_hardening, self.highest_hardening),
            (self.lowest_poisson_ratio, self.highest_poisson_ratio),
            (self.lowest_amplitude, self.highest_amplitude),
        )


def train_plastic_surrogate(
    dataset: MicrostructureDataset,
    settings: PlasticSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> PlasticSurrogate:
    """Train a path surrogate and save it in `out`; repeat the call to resume.

    Labels are solved once and kept in `OUT.labels`, checkpoints lie in `OUT.checkpoints`.

    Raises:
        DataError: The cells are not periodic, hold one phase, or have sides that do not fit.
        ConvergenceError: Training diverged.
    """
    out, seed = Path(out), settings.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = PathNet(
            dim=len(dataset.shape),
            steps=settings.path_steps,
            widths=settings.widths,
            blocks=settings.blocks,
            features=settings.features,
        )
    net.check_shape(dataset.shape)
    labels = solved_plastic_labels(
        training_cells(dataset, random_fields=settings.random_fields, seed=seed),
        settings.materials,
        out.with_name(out.name + ".labels"),
        n_phases=dataset.n_phases,
        steps=settings.path_steps,
        start=settings.start,
        tolerance=settings.tolerance,
        seed=seed,
        identity={
            "data": dataset.digest,
            "seed": seed,
            **settings.model_dump(mode="json", exclude=NET_SETTINGS),
        },
    )
    objective = PathObjective(net)
    state = train(
        objective,
        PathDraw(labels),
        n_samples=len(labels),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(mode="json"), "data": dataset.digest},
        progress=progress,
    )
    objective.load_state_dict(state)
    surrogate = PlasticSurrogate(
        net,
        labels.familiarity(),
        start=settings.start,
        amplitude=settings.highest_amplitude,
    )
    surrogate.save_pretrained(out, card=card, half=settings.half)
    return surrogate


class PathDraw:
    """Draw cells with their tests and solved strains, shifted, mirrored and turned at random."""

    def __init__(self, labels: PlasticLabels) -> None:
        self.labels = labels

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        drawn = [self._turned(k, generator) for k in batch.tolist()]
        phases, *rest = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        moduli = voxel_moduli(phases, self.labels.table[batch])
        return [moduli, *rest, self.labels.multipliers[batch]]

    def _turned(self, k: int, generator: torch.Generator) -> list[Tensor]:
        labels = self.labels
        dim = labels.phases.ndim - 1
        shape = labels.phases.shape[1:]
        u = torch.rand(2 * dim, generator=generator).tolist()
        cubic = len(set(shape)) == 1
        order = torch.randperm(dim, generator=generator) if cubic else torch.arange(dim)
        shifts = [int(u[axis] * shape[axis]) for axis in range(dim)]
        mirrored = [axis for axis in range(dim) if u[dim + axis] < 0.5]
        turn = turned(order, mirrored, tensors=True)

        def moved(field: Tensor) -> Tensor:
            lead = field.ndim - dim
            axes = [lead + axis for axis in range(dim)]
            field = field.roll(shifts, axes).flip([lead + axis for axis in mirrored])
            return field.permute(*range(lead), *[lead + axis for axis in order.tolist()])

        return [
            moved(labels.phases[k]),
            torch.einsum("ij,j...->i...", turn, moved(labels.elastic[k])),
            torch.einsum("ij,j...->i...", turn, moved(labels.secant[k])),
            turn @ labels.target[k],
            (turn.abs() @ labels.driven[k].float()) > 0.5,
            torch.einsum("ij,sj...->si...", turn, moved(labels.strain[k])),
        ]


class PathObjective(nn.Module):
    """Error of a net's stress against the law's on the solver's strains.

    The mean over voxels and steps of the relative error of von Mises stress, and, with smaller
    weights, the relative error of the deviatoric stress as a tensor, those of the mean stress and
    of the volume mean of the stress in shares of the cell's mean von Mises stress, and that of the
    strain, which is all that a voxel well beyond yield can be taught by.
    """

    def __init__(self, net: PathNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        moduli: Float[Tensor, "batch 4 *space"],
        elastic: Float[Tensor, "batch n *space"],
        secant: Float[Tensor, "batch n *space"],
        target: Float[Tensor, "batch n"],
        driven: Bool[Tensor, "batch n"],
        strain: Float[Tensor, "batch step n *space"],
        multipliers: Float[Tensor, "batch step"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        answer = self.net(PlasticCells(moduli, elastic, secant, target, driven, multipliers))
        parts = path_errors(answer, strain, moduli)
        loss = parts["von_mises"] + sum(w * parts[name] for name, w in WEIGHTS.items())
        return loss, {name: value.detach() for name, value in parts.items()}


def path_errors(
    answer: PathAnswer,
    strain: Float[Tensor, "batch step n *space"],
    moduli: Float[Tensor, "batch 4 *space"],
) -> dict[str, Tensor]:
    """Return the parts of the loss of an answer against solved strains."""
    dim = moduli.ndim - 2
    with torch.no_grad():
        deviator, pressure = returned(strain, moduli)
        coordinates = torch.einsum("cn,bsn...->bsc...", in_plane_basis(dim), strain)
        q = von_mises_of(deviator, 2)
        level = q.flatten(1).mean(1).view(-1, *[1] * (q.ndim - 1))
        scale = torch.maximum(q, LOWEST_SHARE * level)
        size = coordinates.square().sum(2).sqrt()
        size = size.flatten(2).mean(2).view(*size.shape[:2], *[1] * dim)
    off, off_pressure = answer.deviator - deviator, answer.pressure - pressure
    normals = whole_basis(dim).to(off)
    mean = torch.einsum("km,bsk->bsm", normals, off.flatten(3).mean(3))
    mean = torch.cat(
        [mean[:, :, :3] + off_pressure.flatten(2).mean(2).unsqueeze(2), mean[:, :, 3:]], 2
    )
    smooth = (answer.coordinates - coordinates).square().sum(2).clamp_min(1e-12).sqrt()
    return {
        "von_mises": ((von_mises_of(answer.deviator, 2) - q).abs() / scale).mean(),
        "direction": (von_mises_of(off, 2) / scale).mean(),
        "pressure": (off_pressure.abs() / level).mean(),
        "mean": (mean.square().sum(2).clamp_min(1e-12).sqrt() / level.flatten(1)).mean(),
        "strain": (smooth / size).mean(),
    }
