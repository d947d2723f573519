"""Training the conditional diffusion generator on a dataset of microstructures."""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor, nn

from generators.augmentation import augment
from generators.axis_symmetry import Auto, augmentation_settings
from generators.code_prior import divergence, fit_code_prior
from generators.denoised_samples import DenoisedSamples
from generators.denoiser import PhaseDenoiser
from generators.diffusion import ConditionalDiffusion
from generators.early_stopping import EarlyStopping
from generators.fraction_head import fit_fraction_head
from generators.initial_weights import initial_weights
from generators.interface_smoothing import MOST_VOXELS, fit_smoothing
from generators.learner import Learner, matching_identity, train_learner
from generators.phase_net import signed_indicators
from generators.prior_matching import MatchingSettings, match_prior
from generators.training_data import check_training_sides
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.conditioning import ScalarEmbedding
from networks.training import Progress, TrainingSettings

# The noise levels that the sampler visits and a margin on either side, every octave alike: the
# upper ones decide the length scale, where the cross-entropy hardly shows it, the lower ones the
# interfaces.
LEAST_SIGMA, MOST_SIGMA = 0.5, 60.0
JUDGED_VOXELS = 2**17  # to which smoothing is fitted while training goes on
LEAST_LOG_LOSS = -6.0  # below this the noise level is solved and gets no more weight


class DiffusionSettings(BaseModel):
    """Net and training of a conditional diffusion generator."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 64, 96),
        min_length=1,
        description="channels per level; multiples of 32 run fastest",
    )
    blocks: int = Field(default=1, ge=1, description="residual blocks per level")
    features: int = Field(default=128, ge=8, description="length of the condition vector")
    latent_dim: int = Field(default=8, ge=1, le=64, description="length of the code")
    code_nats: float = Field(
        default=3.0, ge=0, description="information in the code, in nats; 0: it says nothing"
    )
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
    steps: int = Field(default=8, ge=2, le=16, description="net evaluations per sample")
    noise_range: tuple[PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="lowest and highest noise level in training; null: 0.5 to 60, of which crops "
        "of 32 voxels need less (0.3 to 20)",
    )
    matching: MatchingSettings | None = Field(
        default=None, description="bring samples to the data's descriptors after training; null: no"
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
    def _fit_together(self) -> "DiffusionSettings":
        if self.noise_range is not None and self.noise_range[0] >= self.noise_range[1]:
            raise ValueError("expected noise_range as a lower and a higher level")
        return self


def train_diffusion(
    dataset: MicrostructureDataset,
    settings: DiffusionSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> ConditionalDiffusion:
    """Train a generator and save it in `out`; repeat the call to resume after an interruption.

    The loss is the cross-entropy of the denoised phases over log-uniform noise levels, plus the
    code's information held near `code_nats` (Burgess et al. 2018), plus the likelihood of the
    volume fractions. The prior of the code and the smoothing of interfaces are fitted at the end.
    Checkpoints lie beside the model in `OUT.checkpoints`. With `init_from` the net starts from
    saved weights (`InitialWeights`), with `early_stopping` held-out specimens say for how long it
    is trained (`train_learner`). With `matching` samples are then brought to the data's physical
    descriptors at every process point, while the loss keeps what was learned (`PriorMatching`).

    Raises:
        DataError: The cells do not fit the net's size.
        CheckpointError: `init_from` names no weights that fit.
        ConvergenceError: Training diverged.
    """
    out = Path(out)
    checkpoints = out.with_name(out.name + ".checkpoints")
    settled = settings.model_copy(update=augmentation_settings(settings, dataset))
    initial = initial_weights(settings.init_from, ConditionalDiffusion, dataset)

    def learner(part: MicrostructureDataset) -> Learner:
        objective = initial_objective(part, settled)
        check_training_sides(part.shape, objective.denoiser.size_multiple)
        if initial is not None:
            initial.copy_to(objective.denoiser)
        if settings.code_nats == 0:
            objective.denoiser.silence_code()
        draw = BatchDraw(part, settled)

        def generator(trained: DenoisingObjective, final: bool) -> ConditionalDiffusion:
            if final and settings.matching is not None:
                _fit_heads(trained.denoiser, part, settings, voxels=JUDGED_VOXELS)
                match_prior(
                    trained,
                    draw,
                    _samples(trained.denoiser, part, settings),
                    part,
                    settings.matching,
                    settings.training,
                    parameter_dropout=settings.parameter_dropout,
                    folder=out.with_name(out.name + ".matching.checkpoints"),
                    identity=matching_identity(part, settings, initial),
                    progress=progress,
                )
            voxels = MOST_VOXELS if final else JUDGED_VOXELS
            _fit_heads(trained.denoiser, part, settings, voxels=voxels)
            return ConditionalDiffusion.of_dataset(
                trained.denoiser,
                part,
                match_fractions=settings.match_fractions,
                steps=settings.steps,
            )

        return Learner(objective, draw, generator)

    model = train_learner(
        learner, dataset, settings, checkpoints, initial=initial, progress=progress
    )
    model.save_pretrained(out, card=card, half=settings.half)
    return model


def _samples(
    denoiser: PhaseDenoiser, dataset: MicrostructureDataset, settings: DiffusionSettings
) -> DenoisedSamples:
    return DenoisedSamples(
        denoiser,
        shape=dataset.shape,
        steps=settings.steps,
        match_fractions=settings.match_fractions,
    )


def _fit_heads(
    denoiser: PhaseDenoiser,
    dataset: MicrostructureDataset,
    settings: DiffusionSettings,
    *,
    voxels: int,
) -> None:
    """Fit the code's prior and the smoothing of a trained net, that to so many voxels."""
    # Without a code the whole scatter of the fractions is the head's, and no prior is needed.
    fit = fit_code_prior if settings.code_nats else fit_fraction_head
    seed = settings.training.seed
    fit(denoiser, dataset, parameter_dropout=settings.parameter_dropout, seed=seed)
    denoiser.smoothing = fit_smoothing(
        denoiser,
        dataset,
        steps=settings.steps,
        seed=seed,
        match_fractions=settings.match_fractions,
        voxels=voxels,
    )


def initial_objective(
    dataset: MicrostructureDataset, settings: DiffusionSettings
) -> "DenoisingObjective":
    """Return the loss around an untrained net, its weights drawn from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        denoiser = PhaseDenoiser(
            space=dataset.space,
            n_phases=dataset.n_phases,
            periodic=dataset.periodic,
            widths=settings.widths,
            blocks=settings.blocks,
            latent_dim=settings.latent_dim,
            features=settings.features,
        )
        return DenoisingObjective(denoiser, settings)


class BatchDraw:
    """Draw augmented cells, hidden parameters, noise levels and noise for one step."""

    def __init__(self, dataset: MicrostructureDataset, settings: DiffusionSettings) -> None:
        self.phases, self.units = dataset.phases, dataset.process_units
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        self.settings = settings
        self.augmentation = augmentation_settings(settings, dataset)

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        phases = augment(
            self.phases[batch],
            periodic=self.periodic,
            **self.augmentation,
            generator=generator,
        )
        clean = signed_indicators(phases, self.n_phases)
        units = self.units[batch]
        drop = torch.rand(units.shape, generator=generator) < self.settings.parameter_dropout
        sigma = noise_levels(len(batch), generator, self.settings.noise_range)
        noise = torch.randn(clean.shape, generator=generator)
        code_noise = torch.randn(len(batch), self.settings.latent_dim, generator=generator)
        return [clean, units, drop, sigma, noise, code_noise]


def noise_levels(
    n: int, generator: torch.Generator, between: tuple[float, float] | None = None
) -> Float[Tensor, " n"]:
    """Return log-uniform noise levels, one in each of n equal strata, in random order."""
    share = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    low, high = between or (LEAST_SIGMA, MOST_SIGMA)
    return low * (high / low) ** share


class DenoisingObjective(nn.Module):
    """Cross-entropy of the denoised phases, information in the code, likelihood of fractions.

    The cross-entropy spans orders of magnitude between low and high noise, and the shape of
    interfaces is decided at low noise where it is small. It is therefore divided by its own
    expected value, a function of the noise level learned beside the net (Karras et al. 2024).
    """

    def __init__(self, denoiser: PhaseDenoiser, settings: DiffusionSettings) -> None:
        super().__init__()
        self.denoiser, self.code_nats = denoiser, settings.code_nats
        self.log_loss = nn.Sequential(ScalarEmbedding(16), nn.SiLU(), nn.Linear(16, 1))

    def forward(
        self,
        clean: Tensor,
        units: Tensor,
        drop: Tensor,
        sigma: Tensor,
        noise: Tensor,
        code_noise: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        net = self.denoiser
        process = net.process(units, drop=drop)
        mean, log_variance = net.encode(clean, process)
        nats = divergence(mean, log_variance, *net.code_prior(process)).mean()
        condition = net.condition_raw(process, mean + (log_variance / 2).exp() * code_noise)
        noisy = clean + sigma.view(-1, *[1] * (clean.ndim - 1)) * noise
        logits = net(noisy, sigma, condition).float()
        entropy = F.cross_entropy(logits, clean.argmax(1), reduction="none").flatten(1).mean(1)
        log_loss = self._expected_log_loss(sigma)
        expected, log_spread = net.fractions(condition)
        actual = (clean.flatten(2).mean(2) + 1) / 2
        error = (actual - expected) / log_spread.exp()
        fraction_loss = (0.5 * error.square() + log_spread).mean()
        # The weights only have to exceed what a nat of code, or of fraction, is worth per voxel.
        total = (entropy * (-log_loss).exp() + log_loss).mean()
        total = total + 1e-2 * (nats - self.code_nats).abs() + 1e-2 * fraction_loss
        shown = {
            "cross_entropy": entropy.mean().detach(),
            "code_nats": nats.detach(),
            "fraction_error": (actual - expected).square().mean().sqrt().detach(),
        }
        return total, shown

    def _expected_log_loss(self, sigma: Tensor) -> Tensor:
        middle = LEAST_LOG_LOSS / 2
        return middle - middle * torch.tanh(self.log_loss(sigma.log())[:, 0] / middle)
