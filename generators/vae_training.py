"""Training the conditional VAE on a dataset of microstructures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from generators.augmentation import augment
from generators.axis_symmetry import Auto, augmentation_settings
from generators.code_prior import divergence
from generators.early_stopping import EarlyStopping
from generators.fraction_head import fit_fraction_head, fraction_loss
from generators.initial_weights import initial_weights
from generators.learner import matching_identity, training_identity
from generators.phase_net import signed_indicators
from generators.prior_matching import MatchingSettings, match_prior
from generators.training_data import check_training_sides
from generators.vae import ConditionalVAE
from generators.vae_net import PhaseLadder
from microstructures import DataError
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train


class VaeSettings(BaseModel):
    """Net and training of a conditional VAE."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 48, 64), min_length=1, description="channels per level, finest first"
    )
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 2), min_length=1, description="noise layers per level, finest first"
    )
    noise_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(4, 6, 8), min_length=1, description="noise per layer and place, finest first"
    )
    features: int = Field(default=128, ge=8, description="length of the condition vector")
    latent_dim: int = Field(default=8, ge=1, le=64, description="length of the code")
    code_nats: float = Field(default=2.0, ge=0, description="information in the code, in nats")
    matching: MatchingSettings = MatchingSettings()
    parameter_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of process values hidden in training"
    )
    match_fractions: bool = Field(
        default=True, description="cut samples at the volume fraction that process and code imply"
    )
    isotropic: bool | Auto = Field(
        default=True, description="augment by exchanging the axes; auto: if the data allows it"
    )
    flips: bool | tuple[bool, ...] | Auto = Field(
        default=True,
        description="augment by mirroring the axes: all, none, one flag per axis, or auto: those "
        "that the data allows",
    )
    half: bool = Field(default=False, description="store the weights in half precision")
    init_from: str | None = Field(
        default=None, description="weights to start from: a shipped name or a folder"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop when held-out specimens are matched no better"
    )
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _fit_together(self) -> "VaeSettings":
        if not len(self.widths) == len(self.rungs) == len(self.noise_channels):
            raise ValueError(
                f"expected widths, rungs and noise_channels of one length, got {len(self.widths)}, "
                f"{len(self.rungs)} and {len(self.noise_channels)}"
            )
        return self


def train_vae(
    dataset: MicrostructureDataset,
    settings: VaeSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> ConditionalVAE:
    """Train a generator and save it in `out`; repeat the call to resume after an interruption.

    The loss is the negative evidence bound of the images (cross-entropy of the phases plus the
    divergence of the noise from white; Kingma and Welling 2014), the code's information held
    near `code_nats`, and the likelihood of the volume fractions. With `matching.steps` samples
    from the prior are then brought to the data's physical descriptors at every process point,
    while the bound keeps what was learned (`PriorMatching`). The head of the fractions is fitted
    at the end. Checkpoints lie beside the model in `OUT.checkpoints` and
    `OUT.matching.checkpoints`.

    Raises:
        DataError: The cells do not fit the net's size.
        ConvergenceError: Training diverged.
    """
    settled = settings.model_copy(update=augmentation_settings(settings, dataset))
    initial = initial_weights(settings.init_from, ConditionalVAE, dataset)
    objective = initial_objective(dataset, settings)
    _check_fit(objective.net, dataset, settings)
    if initial is not None:
        initial.copy_to(objective.net)
    out = Path(out)
    draw = BatchDraw(dataset, settled, objective.net)
    heads = {"parameter_dropout": settings.parameter_dropout, "seed": settings.training.seed}
    state = train(
        objective,
        draw,
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity=training_identity(dataset, settings, initial),
        n_samples=len(dataset),
        progress=progress,
    )
    objective.load_state_dict(state)
    if settings.matching.steps:
        match_prior(
            objective,
            draw,
            LadderSamples(objective.net, draw),
            dataset,
            settings.matching,
            settings.training,
            parameter_dropout=settings.parameter_dropout,
            folder=out.with_name(out.name + ".matching.checkpoints"),
            identity=matching_identity(dataset, settings, initial),
            progress=progress,
        )
    fit_fraction_head(objective.net, dataset, **heads)
    model = ConditionalVAE.of_dataset(
        objective.net, dataset, match_fractions=settings.match_fractions
    )
    model.save_pretrained(out, card=card, half=settings.half)
    return model


def _check_fit(net: PhaseLadder, dataset: MicrostructureDataset, settings: VaeSettings) -> None:
    if settings.early_stopping is not None:
        raise DataError(
            "expected early_stopping for a diffusion model or a GAN, got a VAE, which is trained "
            "in two stages; choose another family, or set training.steps"
        )
    check_training_sides(dataset.shape, net.size_multiple)


def initial_objective(dataset: MicrostructureDataset, settings: VaeSettings) -> "LadderObjective":
    """Return the loss around an untrained net, its weights drawn from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        net = PhaseLadder(
            space=dataset.space,
            n_phases=dataset.n_phases,
            periodic=dataset.periodic,
            widths=settings.widths,
            rungs=settings.rungs,
            noise_channels=settings.noise_channels,
            latent_dim=settings.latent_dim,
            features=settings.features,
        )
        return LadderObjective(net, settings)


class BatchDraw:
    """Draw augmented cells, hidden parameters, and noise of code and ladder for one step."""

    def __init__(
        self, dataset: MicrostructureDataset, settings: VaeSettings, net: PhaseLadder
    ) -> None:
        self.phases, self.units = dataset.phases, dataset.process_units
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        self.settings = settings
        self.augmentation = augmentation_settings(settings, dataset)
        self.noise_shapes = net.noise_shapes(tuple(dataset.phases.shape[1:]))

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        settings = self.settings
        phases = augment(
            self.phases[batch],
            periodic=self.periodic,
            **self.augmentation,
            generator=generator,
        )
        units = self.units[batch]
        drop = torch.rand(units.shape, generator=generator) < settings.parameter_dropout
        clean = signed_indicators(phases, self.n_phases)
        return [clean, units, drop, *self.noises(len(batch), generator)]

    def noises(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Return white noise of n samples: for the code, then for each rung."""
        shapes = [(self.settings.latent_dim,), *self.noise_shapes]
        return [torch.randn(n, *shape, generator=generator) for shape in shapes]


class LadderSamples:
    """Samples of the ladder's prior, cut at the fractions of real cells of the same process."""

    def __init__(self, net: PhaseLadder, draw: BatchDraw) -> None:
        self.net, self.noises = net, draw.noises
        self.periodic = net.config["periodic"]

    def __call__(
        self, clean: Tensor, units: Tensor, drop: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return logits and fractions (see `PriorSamples`)."""
        code, *rungs = noises
        condition = self.net.condition(self.net.process(units, drop=drop), code)
        logits, _ = self.net(rungs, condition)
        return logits, (clean.flatten(2).mean(2) + 1) / 2


class LadderObjective(nn.Module):
    """Evidence bound of the images, information in the code, likelihood of the fractions."""

    def __init__(self, net: PhaseLadder, settings: VaeSettings) -> None:
        super().__init__()
        self.net, self.code_nats = net, settings.code_nats

    def forward(
        self, clean: Tensor, units: Tensor, drop: Tensor, code_noise: Tensor, *noises: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        net = self.net
        process = net.process(units, drop=drop)
        mean, log_variance = net.encode(clean, process)
        m, log_v = net.code_prior(process)
        # The encoder strives for the wanted information, the prior for the least divergence, so
        # that the prior has the moments of the codes at each process point and no wider ones.
        nats = divergence(mean, log_variance, m.detach(), log_v.detach()).mean()
        prior_nats = divergence(mean.detach(), log_variance.detach(), m, log_v).mean()
        condition = net.condition_raw(process, mean + (log_variance / 2).exp() * code_noise)
        logits, noise_nats = net(noises, condition, clean)
        entropy = F.cross_entropy(logits, clean.argmax(1))
        bound = entropy + noise_nats.mean() / clean[0, 0].numel()
        actual = (clean.flatten(2).mean(2) + 1) / 2
        # The bound per voxel is small: without its weight the code would outweigh the image.
        total = 20 * bound + 0.1 * (nats - self.code_nats).abs() + 0.1 * prior_nats
        total = total + 0.01 * fraction_loss(net, condition, actual)
        shown = {
            "cross_entropy": entropy.detach(),
            "noise_nats": noise_nats.detach().mean(),
            "code_nats": nats.detach(),
        }
        return total, shown
