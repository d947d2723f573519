"""Training the image-to-field net: L1 against the solver's stress, and a critic of its patches."""

from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from microstructures import DataError, MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.critic import relativistic_loss
from networks.patch_critic import PatchCritic, patch_penalty
from networks.training import Progress, TrainingSettings, train
from surrogates.image_cells import CaseShares
from surrogates.image_field_net import PIXELS, StressNet, seen
from surrogates.image_fields import ImageFieldSurrogate
from surrogates.image_labels import ImageLabels, solved_image_labels
from surrogates.labels import training_cells
from surrogates.material_settings import MaterialSettings
from surrogates.quantities import local_moduli
from surrogates.symmetries import turned

LEAST_LEVEL = 0.05  # of the stress unit: fields smaller than that count as that large
NET_SETTINGS = {
    *("training", "widths", "blocks", "features", "half"),
    *("critic_widths", "adversarial", "penalty", "penalised"),
}
"""Settings that the solver's labels do not depend on."""


class ImageFieldSettings(MaterialSettings):
    """Net, critic, cases, materials and training of an image-to-field surrogate."""

    lowest_contrast: float = Field(1.0, ge=1, description="smallest ratio of moduli")
    cracked_share: float = Field(0.3, ge=0, le=1, description="share of cells with cracks")
    free_share: float = Field(0.15, ge=0, le=1, description="share of bars with free sides")
    gripped_share: float = Field(0.2, ge=0, le=1, description="share of specimens between grips")
    tolerance: float = Field(1e-3, gt=0, le=1e-2, description="residual of the solver's labels")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32, 48, 56, 56), min_length=1, description="channels per level of the U-Net"
    )
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    features: int = Field(64, ge=4, description="length of the condition vector")
    critic_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (24, 32, 48), min_length=1, description="channels per level of the critic"
    )
    adversarial: float = Field(
        0.05, ge=0, description="weight of the critic beside the L1 error; 0: no critic"
    )
    penalty: float = Field(1.0, ge=0, description="weight of R1 and R2 on the critic")
    penalised: int = Field(2, ge=1, description="samples per step that R1 and R2 see")
    half: bool = Field(True, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings.model_validate(
        {"steps": 3500, "batch_size": 8, "learning_rate": 2e-3, "gradient_clip": 100.0}
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> "ImageFieldSettings":
        total = self.cracked_share + self.free_share + self.gripped_share
        if total > 1:
            raise ValueError(
                f"cracked_share, free_share and gripped_share add up to {total:g}, above 1"
            )
        return self

    @property
    def shares(self) -> CaseShares:
        """Which share of cells is what."""
        return CaseShares(self.cracked_share, self.free_share, self.gripped_share)


def train_image_field(
    dataset: MicrostructureDataset,
    settings: ImageFieldSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> ImageFieldSurrogate:
    """Train an image-to-field surrogate and save it in `out`; repeat the call to resume.

    Net and critic take simultaneous steps of one optimiser. Labels are solved once and kept in
    `OUT.labels`, checkpoints lie in `OUT.checkpoints`.

    Raises:
        DataError: The cells are not periodic, hold one phase, or have sides that do not fit.
        ConvergenceError: Training diverged.
    """
    out, seed = Path(out), settings.training.seed
    objective = initial_objective(settings, dim=len(dataset.shape))
    net = objective.net
    net.check_shape(dataset.shape)
    if objective.critic is not None and any(
        side % objective.critic.size_multiple for side in dataset.shape
    ):
        raise DataError(
            f"expected sides that are multiples of {objective.critic.size_multiple} for the "
            f"critic, got {tuple(dataset.shape)}; give fewer critic_widths"
        )
    labels = solved_image_labels(
        training_cells(dataset, random_fields=settings.random_fields, seed=seed),
        settings.materials,
        settings.shares,
        out.with_name(out.name + ".labels"),
        n_phases=dataset.n_phases,
        tolerance=settings.tolerance,
        seed=seed,
        identity={
            "data": dataset.digest,
            "seed": seed,
            **settings.model_dump(mode="json", exclude=NET_SETTINGS),
        },
    )
    state = train(
        objective,
        StressDraw(labels),
        n_samples=len(labels),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(mode="json"), "data": dataset.digest},
        progress=progress,
    )
    objective.load_state_dict(state)
    surrogate = ImageFieldSurrogate(net, labels.familiarity())
    surrogate.save_pretrained(out, card=card, half=settings.half)
    return surrogate


def initial_objective(settings: ImageFieldSettings, *, dim: int) -> "StressObjective":
    """Return the loss around untrained nets, their weights drawn from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        net = StressNet(
            dim=dim, widths=settings.widths, blocks=settings.blocks, features=settings.features
        )
        critic = None
        if settings.adversarial:
            # Image, macroscopic strain, stress.
            critic = PatchCritic(
                in_channels=PIXELS + 2 * net.n,
                widths=settings.critic_widths,
                periodic=(True,) * dim,
            )
        return StressObjective(net, critic, settings)


class StressDraw:
    """Draw cells with their solved stress, shifted, mirrored and turned, and a load at random."""

    def __init__(self, labels: ImageLabels) -> None:
        self.labels = labels

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        drawn = [self._turned(k, generator) for k in batch.tolist()]
        phases, stress = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        load = torch.randn(len(batch), stress.shape[1], generator=generator)
        moduli = local_moduli(phases, self.labels.moduli[batch])
        return [moduli, stress, load / load.norm(dim=1, keepdim=True)]

    def _turned(self, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        phases, stress = self.labels.phases[k], self.labels.stress[k].float()
        dim, shape = phases.ndim, phases.shape
        u = torch.rand(2 * dim, generator=generator).tolist()
        cubic = len(set(shape)) == 1
        order = torch.randperm(dim, generator=generator) if cubic else torch.arange(dim)
        shifts = [int(u[axis] * shape[axis]) for axis in range(dim)]
        mirrored = [axis for axis in range(dim) if u[dim + axis] < 0.5]
        turn = turned(order, mirrored, tensors=True)

        def moved(field: Tensor) -> Tensor:
            lead = field.ndim - dim
            field = field.roll(shifts, [lead + axis for axis in range(dim)])
            field = field.flip([lead + axis for axis in mirrored])
            return field.permute(*range(lead), *[lead + axis for axis in order.tolist()])

        # Both the load and the stress that answers it are turned.
        return moved(phases), torch.einsum("ai,bj,ij...->ab...", turn, turn, moved(stress))


class StressObjective(nn.Module):
    """L1 error of the stress of all unit loads, and a critic of the stress of one random load.

    The L1 error is relative to the mean size of the cell's stress. Critic and net contest by the
    relativistic pairing loss (Jolicoeur-Martineau 2018) patch by patch, the solved and the made
    field of the same cell and load being a pair, with R1 and R2 on the critic: the game of Isola
    et al. (2017), whose own loss and batch normalisation are replaced by what keeps simultaneous
    steps stable (Huang et al. 2024).
    """

    def __init__(
        self, net: StressNet, critic: PatchCritic | None, settings: ImageFieldSettings
    ) -> None:
        super().__init__()
        self.net, self.critic = net, critic
        self.settings = settings

    def forward(
        self,
        moduli: Float[Tensor, "batch 2 *space"],
        stress: Float[Tensor, "batch load n *space"],
        load: Float[Tensor, "batch load"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        made = self.net(moduli)
        level = stress.abs().flatten(1).mean(1).clamp_min(LEAST_LEVEL)
        level = level.view(-1, *[1] * (stress.ndim - 1))
        error = ((made - stress) / level).abs().mean()
        shown = {"l1": error.detach()}
        if self.critic is None:
            return error, shown
        pair = [torch.einsum("bl,bln...->bn...", load, s / level) for s in (stress, made)]
        contest, numbers = self._contest(moduli, load, *pair)
        return error + contest, {**shown, **numbers}

    def _contest(
        self, moduli: Tensor, load: Tensor, real: Tensor, made: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses of critic and net for a simultaneous step.

        The critic learns without a path to the net, the net through a copy of the critic without
        a path to its weights.
        """
        assert self.critic is not None
        settings = self.settings
        # Stress concentrates at crack tips: asinh lets the critic see the rest as well.
        real, made = real.asinh(), made.asinh()
        strain = load.view(*load.shape, *[1] * (moduli.ndim - 2))
        image = seen(moduli)[0][:, :PIXELS]
        image = torch.cat([image, strain.expand(-1, -1, *moduli.shape[2:])], 1)
        frozen = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        score_real = self.critic(image, real).flatten()
        score_made = self.critic(image, made.detach()).flatten()
        judged = functional_call(self.critic, frozen, (image, made)).flatten()
        critic_loss = relativistic_loss(score_real, score_made)
        net_loss = relativistic_loss(judged, score_real.detach())
        few = slice(0, settings.penalised)
        steep = patch_penalty(
            self.critic, image[few].repeat(2, *[1] * (image.ndim - 1)),
            torch.cat([real[few], made[few]]),
        )  # fmt: skip
        numbers = {
            "critic": critic_loss.detach(),
            "slope": steep.detach(),
            "margin": (score_real - score_made).mean().detach(),
        }
        total = critic_loss + settings.adversarial * net_loss + 2 * settings.penalty * steep
        return total, numbers
