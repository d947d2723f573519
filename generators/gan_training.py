"""Training the conditional GAN on a dataset of microstructures."""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call

from generators.descriptor_matching import KINDS, DescriptorMatching, descriptors
from generators.diffusion_training import augment
from generators.fractions import balance, cut_exactly
from generators.gan import ConditionalGAN
from generators.gan_net import SOFTNESS, PhaseGenerator, centred
from generators.phase_net import signed_indicators
from microstructures import DataError
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed, generator_for
from networks.critic import Critic, gradient_penalty, relativistic_loss
from networks.training import Progress, TrainingSettings, train

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
    isotropic: bool = Field(default=True, description="augment by exchanging the axes")
    flips: bool = Field(default=True, description="augment by mirroring the axes")
    half: bool = Field(default=False, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings(learning_rate=5e-4, gradient_clip=100.0)


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
        ConvergenceError: Training diverged.
    """
    objective = initial_objective(dataset, settings)
    net, shape = objective.net, tuple(dataset.phases.shape[1:])
    multiple = max(net.size_multiple, objective.critic.size_multiple)
    if any(s % multiple for s in shape):
        raise DataError(
            f"expected cells whose sides are multiples of {multiple}, got {shape}; use fewer "
            "widths or another crop"
        )
    out = Path(out)
    state = train(
        objective,
        AdversarialDraw(dataset, settings, net),
        n_samples=len(dataset),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(), "data": dataset.digest},
        progress=progress,
    )
    objective.load_state_dict(state)
    fit_fractions(
        net,
        dataset,
        parameter_dropout=settings.parameter_dropout,
        seed=settings.training.seed,
    )
    model = ConditionalGAN.of_dataset(net, dataset, match_fractions=settings.match_fractions)
    model.save_pretrained(out, card=card, half=settings.half)
    return model


def initial_objective(
    dataset: MicrostructureDataset, settings: GanSettings
) -> "AdversarialObjective":
    """Return the loss around untrained nets, their weights drawn from the settings' seed."""
    seed = settings.training.seed
    about = {
        "space": dataset.space,
        "n_phases": dataset.n_phases,
        "periodic": dataset.periodic,
        "features": settings.features,
    }
    matching = DescriptorMatching.fit(
        dataset,
        parameter_dropout=settings.parameter_dropout,
        generator=generator_for(seed, "matching"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = PhaseGenerator(
            **about,
            widths=settings.widths,
            blocks=settings.blocks,
            latent_dim=settings.latent_dim,
            encoder_widths=settings.encoder_widths,
        )
        critic = Critic(**about, widths=settings.critic_widths)
    return AdversarialObjective(net, critic, matching, settings)


def fit_fractions(
    net: PhaseGenerator, dataset: MicrostructureDataset, *, parameter_dropout: float, seed: int
) -> float:
    """Fit the net's fractions to the data, and return their mean log-likelihood at the end.

    They have weights of their own, so that they need not be trained beside the shapes. Half of
    the cells of a batch have values hidden at random.
    """
    generator = generator_for(seed, "fractions")
    actual = (signed_indicators(dataset.phases, dataset.n_phases).flatten(2).mean(2) + 1) / 2
    weights = [*net.process.amounts.parameters(), *net.fraction_head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=FIT_RATE)
    total = 0.0
    for step in range(FIT_STEPS):
        rows = torch.randint(len(dataset), (FIT_BATCH,), generator=generator)
        units = dataset.process_units[rows]
        drop = torch.rand(units.shape, generator=generator) < parameter_dropout
        drop &= torch.rand(len(rows), 1, generator=generator) < 0.5
        condition = net.condition(
            net.process(units, drop=drop), torch.zeros(len(rows), net.latent_dim)
        )
        loss = fraction_loss(net, condition, actual[rows])
        warm = min(1.0, step / FIT_WARMUP)
        optimizer.param_groups[0]["lr"] = FIT_RATE * warm * (1 - step / FIT_STEPS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * (step >= FIT_STEPS // 2)
    return -total / (FIT_STEPS - FIT_STEPS // 2)


class AdversarialDraw:
    """Draw augmented cells, hidden parameters, codes and white noise for one step."""

    def __init__(
        self, dataset: MicrostructureDataset, settings: GanSettings, net: PhaseGenerator
    ) -> None:
        self.phases, self.units = dataset.phases, dataset.process_units
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        self.settings = settings
        self.noise_shape = net.noise_shape(tuple(dataset.phases.shape[1:]))

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        phases = augment(
            self.phases[batch],
            periodic=self.periodic,
            isotropic=self.settings.isotropic,
            flips=self.settings.flips,
            generator=generator,
        )
        units = self.units[batch]
        drop = torch.rand(units.shape, generator=generator) < self.settings.parameter_dropout
        code = torch.randn(len(batch), self.settings.latent_dim, generator=generator)
        white = torch.randn(len(batch), *self.noise_shape, generator=generator)
        return [signed_indicators(phases, self.n_phases), units, drop, code, white]


class AdversarialObjective(nn.Module):
    """Generator, critic, descriptors, code and fractions in one loss, for simultaneous steps."""

    steps: Tensor

    def __init__(
        self,
        net: PhaseGenerator,
        critic: Critic,
        matching: DescriptorMatching,
        settings: GanSettings,
    ) -> None:
        super().__init__()
        self.net, self.critic, self.matching = net, critic, matching
        self.settings = settings
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self, real: Tensor, units: Tensor, drop: Tensor, code: Tensor, white: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        net, settings = self.net, self.settings
        process = net.process(units, drop=drop)
        condition = net.condition(process, code)
        fractions = (real.flatten(2).mean(2) + 1) / 2
        field = net(white, condition)
        made, soft = cut_through(field, fractions if settings.match_fractions else None)
        with torch.autocast(made.device.type, enabled=False):
            # Descriptors of the cut with the slopes of the soft phases' own: a surface of hard
            # phases, for one, has no slope where there is none yet.
            smooth = torch.cat(descriptors(soft, periodic=self.periodic), 1)
            hard = torch.cat(descriptors(made.detach(), periodic=self.periodic), 1)
            values = hard + smooth - smooth.detach()
            pull, gaps = self.matching(values, units, ~drop)
        nats = self._code_nats(made, process, code)
        total = settings.matching * pull + CODE_WEIGHT * F.relu(settings.code_nats - nats)
        shown = {f"{kind}_gap": gap for kind, gap in zip(KINDS, gaps, strict=True)}
        shown |= {"code_nats": nats.detach()}
        self.steps += 1
        if self.steps > settings.matching_steps:
            adversarial, numbers = self._adversarial(real, made, units, drop)
            total, shown = total + adversarial, {**shown, **numbers}
        return total, shown

    def _adversarial(
        self, real: Tensor, made: Tensor, units: Tensor, drop: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of critic and net for a simultaneous step.

        The critic learns from images without a path to the net, the net through a copy of the
        critic without a path to its weights.
        """
        frozen = {k: v.detach() for k, v in self.critic.named_parameters()}
        score_real = self.critic(real, units, drop)
        score_made = self.critic(made.detach(), units, drop)
        judged = functional_call(self.critic, frozen, (made, units, drop))
        critic_loss = relativistic_loss(score_real, score_made)
        net_loss = relativistic_loss(judged, score_real.detach())
        few = slice(0, self.settings.penalised)
        both = torch.cat([real[few], made[few]])
        slope = gradient_penalty(self.critic, both, units[few].repeat(2, 1), drop[few].repeat(2, 1))
        numbers = {
            "critic": critic_loss.detach(),
            "slope": slope.detach(),
            "margin": (score_real - score_made).mean().detach(),
        }
        return critic_loss + net_loss + 2 * self.settings.penalty * slope, numbers

    @property
    def periodic(self) -> list[bool]:
        """One flag per axis."""
        return self.net.config["periodic"]

    def _code_nats(self, made: Tensor, process: Tensor, code: Tensor) -> Tensor:
        """Return a lower bound of the information on the code in what was made (Chen et al.)."""
        mean, log_variance = self.net.encode(made, process.detach())
        error = (code - mean).square() / log_variance.exp() + log_variance
        return 0.5 * (code.square() - error).sum(1).mean()


def fraction_loss(net: PhaseGenerator, condition: Tensor, actual: Tensor) -> Tensor:
    """Return the negative log-likelihood of real fractions."""
    expected, log_spread = net.fractions(condition)
    return (0.5 * ((actual - expected) / log_spread.exp()).square() + log_spread).mean()


def cut_through(field: Tensor, fractions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return hard phases in ±1 whose gradient is that of soft ones, and the soft ones.

    The critic sees what sampling gives, images cut at their fractions, and cannot tell generated
    ones by grey voxels; the gradient reaches the voxels around each interface (Bengio et al.
    2013).
    """
    if fractions is not None:
        field = centred(field)
    logits, fixed = SOFTNESS * field, field.detach()
    if fractions is None:
        labels = fixed.argmax(1)
    else:
        labels = _cut(fixed, fractions)
        offsets = balance(SOFTNESS * fixed, fractions)
        logits = logits + offsets.view(*offsets.shape, *[1] * (field.ndim - 2))
    soft = 2 * F.softmax(logits, 1) - 1
    return signed_indicators(labels, field.shape[1]) + soft - soft.detach(), soft


def _cut(field: Tensor, fractions: Tensor) -> Tensor:
    """Return `cut_exactly`, of two phases for the whole batch at once."""
    if field.shape[1] != 2:
        return cut_exactly(field, fractions)
    edge = (field[:, 1] - field[:, 0]).flatten(1)
    counts = (fractions[:, 1:] * edge.shape[1]).round().long()
    order = edge.argsort(1, descending=True).argsort(1)
    return (order < counts).long().view(len(field), *field.shape[2:])
