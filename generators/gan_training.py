"""Training the conditional GAN on a dataset of microstructures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from generators.augmentation import augment
from generators.axis_symmetry import Auto, augmentation_settings
from generators.early_stopping import EarlyStopping
from generators.fraction_head import descend, fraction_loss
from generators.gan import ConditionalGAN
from generators.gan_net import PhaseGenerator
from generators.initial_weights import initial_weights
from generators.judge import Judge
from generators.learner import Learner, train_learner
from generators.phase_net import signed_indicators
from generators.soft_cut import cut_through
from generators.training_data import check_training_sides
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed, generator_for
from networks.training import Progress, TrainingSettings

CODE_WEIGHT = 3.0
FIT_STEPS, FIT_BATCH, FIT_RATE, FIT_WARMUP = 4000, 256, 5e-3, 100  # of the fractions' fit


class GanSettings(BaseModel):
    """Net and training of a conditional GAN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 64, 64), min_length=1, description="channels per level, finest first"
    )
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 3, 1), min_length=1, description="residual blocks per level, finest first"
    )
    critic_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(24, 48, 64), min_length=1, description="channels per level of the critic"
    )
    encoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(16, 24, 32), min_length=1, description="channels per level of the encoder"
    )
    features: int = Field(default=128, ge=8, description="length of the condition vector")
    latent_dim: int = Field(default=8, ge=1, le=64, description="length of the code")
    code_nats: float = Field(
        default=2.0, ge=0, description="information in the code that the generator strives for"
    )
    penalty: float = Field(default=30.0, ge=0, description="weight of R1 and R2")
    penalised: int = Field(default=2, ge=1, description="samples per step that R1 and R2 see")
    matching: float = Field(default=10.0, ge=0, description="weight of the descriptor matching")
    matching_steps: int = Field(
        default=1000, ge=0, description="steps of descriptor matching before the critic joins in"
    )
    parameter_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of process values hidden in training"
    )
    match_fractions: bool = Field(
        default=True, description="cut samples at the volume fraction that the process implies"
    )
    isotropic: bool | Auto = Field(
        default=True, description="augment by exchanging the axes; auto: if the data allows it"
    )
    flips: bool | tuple[bool, ...] | Auto = Field(
        default=True,
        description="augment by mirroring the axes: all, none, one flag per axis, or auto: those "
        "that the data allows",
    )
    volumes: bool = Field(
        default=False, description="make volumes, of which the 2-D data are plane sections"
    )
    sections: int = Field(
        default=12, ge=1, description="sections per axis that are judged, of volumes"
    )
    half: bool = Field(default=False, description="store the weights in half precision")
    init_from: str | None = Field(
        default=None, description="weights to start from: a shipped name or a folder"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop when held-out specimens are matched no better"
    )
    training: TrainingSettings = TrainingSettings(learning_rate=5e-4, gradient_clip=100.0)

    @model_validator(mode="after")
    def _fit_together(self) -> "GanSettings":
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"expected widths and blocks of one length, got {len(self.widths)} and "
                f"{len(self.blocks)}"
            )
        own = (self.init_from, self.early_stopping)
        if self.volumes and own != (None, None):
            raise ValueError("expected no init_from or early_stopping with volumes")
        return self


def train_gan(
    dataset: MicrostructureDataset,
    settings: GanSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> ConditionalGAN:
    """Train a generator against a critic and save it in `out`; repeat the call to resume.

    The net and the critic take simultaneous steps of one optimiser on the relativistic pairing
    loss with R1 and R2 (Huang et al. 2024): each real cell against one made for its process and
    cut at its fractions, so that the critic judges shape and not amount. Mean and scatter of
    physical descriptors are matched besides (`DescriptorMatching`), first alone, so that the
    critic meets images that are nearly right. An encoder recovers the code from what was made.
    The averaged weights are kept; the fractions are fitted to the data at the end.
    Checkpoints lie beside the model in `OUT.checkpoints`.

    Raises:
        DataError: The cells do not fit the nets' sizes.
        CheckpointError: `init_from` names no weights that fit.
        ConvergenceError: Training diverged.
    """
    settled = settings.model_copy(update=augmentation_settings(settings, dataset))
    initial = initial_weights(settings.init_from, ConditionalGAN, dataset)

    def learner(part: MicrostructureDataset) -> Learner["AdversarialObjective", ConditionalGAN]:
        objective = initial_objective(part, settled)
        multiple = max(objective.net.size_multiple, objective.judge.critic.size_multiple)
        check_training_sides(dataset.shape, multiple)
        if initial is not None:
            initial.copy_to(objective.net)
        return Learner(
            objective,
            AdversarialDraw(part, settled, objective.net),
            lambda trained, _: _generator(trained.net, part, settings),
        )

    out = Path(out)
    model = train_learner(
        learner,
        dataset,
        settings,
        out.with_name(out.name + ".checkpoints"),
        initial=initial,
        progress=progress,
    )
    model.save_pretrained(out, card=card, half=settings.half)
    return model


def _generator(
    net: PhaseGenerator, dataset: MicrostructureDataset, settings: GanSettings
) -> ConditionalGAN:
    """Return the generator of a trained net, after fitting the fractions."""
    fit_fractions(
        net,
        dataset,
        parameter_dropout=settings.parameter_dropout,
        seed=settings.training.seed,
    )
    return ConditionalGAN.of_dataset(net, dataset, match_fractions=settings.match_fractions)


def initial_objective(
    dataset: MicrostructureDataset, settings: GanSettings
) -> "AdversarialObjective":
    """Return the loss around untrained nets, their weights drawn from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        net = initial_net(dataset, settings, periodic=dataset.periodic)
        return AdversarialObjective(net, initial_judge(dataset, settings), settings)


def initial_net(
    dataset: MicrostructureDataset, settings: GanSettings, *, periodic: Sequence[bool]
) -> PhaseGenerator:
    """Return an untrained net for cells with these axes; torch's own seed draws its weights."""
    return PhaseGenerator(
        space=dataset.space,
        n_phases=dataset.n_phases,
        periodic=periodic,
        widths=settings.widths,
        blocks=settings.blocks,
        latent_dim=settings.latent_dim,
        features=settings.features,
        encoder_widths=settings.encoder_widths,
    )


def initial_judge(dataset: MicrostructureDataset, settings: GanSettings) -> Judge:
    """Return the judge of images like a dataset's; torch's own seed draws the critic's weights."""
    return Judge.of_dataset(
        dataset,
        widths=settings.critic_widths,
        features=settings.features,
        parameter_dropout=settings.parameter_dropout,
        penalty=settings.penalty,
        penalised=settings.penalised,
        generator=generator_for(settings.training.seed, "matching"),
    )


def fit_fractions(
    net: PhaseGenerator,
    dataset: MicrostructureDataset,
    *,
    parameter_dropout: float,
    seed: int,
    actual: Tensor | None = None,
) -> float:
    """Fit the net's fractions to the data, and return their mean log-likelihood at the end.

    They have weights of their own, so that they need not be trained beside the shapes. Half of
    the cells of a batch have values hidden at random. `actual` are the fractions to learn instead
    of the cells' own, `(sample, phase)`.
    """
    generator = generator_for(seed, "fractions")
    actual = phase_shares(dataset) if actual is None else actual
    weights = [*net.process.amounts.parameters(), *net.fraction_head.parameters()]

    def loss() -> Tensor:
        rows = torch.randint(len(dataset), (FIT_BATCH,), generator=generator)
        units = dataset.process_units[rows]
        drop = torch.rand(units.shape, generator=generator) < parameter_dropout
        drop &= torch.rand(len(rows), 1, generator=generator) < 0.5
        condition = net.condition(
            net.process(units, drop=drop), torch.zeros(len(rows), net.latent_dim)
        )
        return fraction_loss(net, condition, actual[rows])

    return -descend(loss, weights, steps=FIT_STEPS, rate=FIT_RATE, warmup=FIT_WARMUP)


def phase_shares(dataset: MicrostructureDataset) -> Float[Tensor, "sample phase"]:
    """Return the volume fractions of every cell."""
    return (signed_indicators(dataset.phases, dataset.n_phases).flatten(2).mean(2) + 1) / 2


class AdversarialDraw:
    """Draw augmented cells, hidden parameters, codes and white noise for one step."""

    def __init__(
        self, dataset: MicrostructureDataset, settings: GanSettings, net: PhaseGenerator
    ) -> None:
        self.phases, self.units = dataset.phases, dataset.process_units
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        self.settings = settings
        self.augmentation = augmentation_settings(settings, dataset)
        self.noise_shape = net.noise_shape(tuple(dataset.phases.shape[1:]))

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        phases = augment(
            self.phases[batch],
            periodic=self.periodic,
            **self.augmentation,
            generator=generator,
        )
        units = self.units[batch]
        drop = torch.rand(units.shape, generator=generator) < self.settings.parameter_dropout
        code = torch.randn(len(batch), self.settings.latent_dim, generator=generator)
        white = torch.randn(len(batch), *self.noise_shape, generator=generator)
        return [signed_indicators(phases, self.n_phases), units, drop, code, white]


class AdversarialObjective(nn.Module):
    """Generator, judge and code in one loss, for simultaneous steps."""

    steps: Tensor

    def __init__(self, net: PhaseGenerator, judge: Judge, settings: GanSettings) -> None:
        super().__init__()
        self.net, self.judge = net, judge
        self.settings = settings
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self, real: Tensor, units: Tensor, drop: Tensor, code: Tensor, white: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self.settings
        process = self.net.process(units, drop=drop)
        field = self.net(white, self.net.condition(process, code))
        fractions = (real.flatten(2).mean(2) + 1) / 2 if settings.match_fractions else None
        made, soft = cut_through(field, fractions, periodic=self.judge.periodic)
        pull, shown = self.judge.pull(made, soft, units, drop)
        loss, nats = code_loss(self.net, made, process, code, nats=settings.code_nats)
        total = settings.matching * pull + loss
        self.steps += 1
        if self.steps > settings.matching_steps:
            adversarial, numbers = self.judge.contest(real, made, units, drop)
            total, shown = total + adversarial, {**shown, **numbers}
        return total, {**shown, "code_nats": nats}


def code_loss(
    net: PhaseGenerator, made: Tensor, process: Tensor, code: Tensor, *, nats: float
) -> tuple[Tensor, Tensor]:
    """Return what the net loses as long as the code shows too little, and how much it shows.

    The latter is a lower bound of the information on the code in what was made (Chen et al. 2016),
    in nats.
    """
    mean, log_variance = net.encode(made, process.detach())
    error = (code - mean).square() / log_variance.exp() + log_variance
    found = 0.5 * (code.square() - error).sum(1).mean()
    return CODE_WEIGHT * F.relu(nats - found), found.detach()
