"""Samples of a trained net, brought to the data's physical descriptors after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from generators.descriptor_matching import KINDS, DescriptorMatching, descriptors
from generators.soft_cut import cut_through
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for
from networks.training import Draw, Progress, TrainingSettings, train

STEPS_SEEN = 800.0


class MatchingSettings(BaseModel):
    """How long to match samples of the prior with the data, after the training before."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=200, ge=0, description="optimizer steps")
    matched: int = Field(default=16, ge=2, description="samples of the prior per step")
    weight: float = Field(default=0.2, ge=0, description="weight of the descriptors")
    learning_rate: float = Field(default=5e-5, gt=0, description="peak rate of AdamW")
    ema_steps: int = Field(default=50, ge=1, description="averaging length of the weights")

    def training(self, before: TrainingSettings) -> TrainingSettings:
        """Return the settings of the loop, those of the training before where nothing is said."""
        return before.model_copy(
            update={
                "steps": self.steps,
                "learning_rate": self.learning_rate,
                "ema_steps": self.ema_steps,
                "warmup_steps": 20,
                "checkpoint_every": 25,
                "seed": before.seed + 1,
            }
        )


@runtime_checkable
class PriorSamples(Protocol):
    """Draws samples of a net as generation does, differentiable in its weights."""

    periodic: Sequence[bool]

    def noises(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Return the white noise that n samples come from, always as many tensors."""
        ...

    def __call__(
        self, clean: Tensor, units: Tensor, drop: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Return fields `(batch, phase, *space)` and their cut's fractions (None: free).

        Args:
            clean: Real cells of the same processes, in ±1.
            units: The processes in unit coordinates.
            drop: Which of their values are hidden.
            noises: What `noises` returned.
        """
        ...


class PriorDraw:
    """The batch of the training before, after the noise that samples of the prior come from.

    Args:
        draw: Draws that batch.
        samples: Says which noise.
        matched: Samples of the prior.
    """

    def __init__(self, draw: Draw, samples: PriorSamples, matched: int) -> None:
        self.draw, self.samples, self.matched = draw, samples, matched

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        tensors = self.draw(batch, generator)
        return [*self.samples.noises(min(self.matched, len(batch)), generator), *tensors]


class PriorMatching(nn.Module):
    """The loss of a training, plus the descriptors of what the trained net makes.

    A loss that is good on average leaves samples with errors in a known direction: posteriors
    never fill a prior exactly, and errors of a denoiser add up along its steps. Here samples of
    the prior are cut as in generation, and mean and scatter of physical descriptors are brought
    to the data's at every process point (`DescriptorMatching`).

    Limits: mean and scatter must be smooth functions of the process. Where cells of one process
    may be empty or full (nucleation) they are not, and the gaps grew in a trial at the rate that
    serves a spinodal alloy.

    Args:
        objective: The loss before; its tensors begin with cells, unit coordinates and hidden ones.
        samples: Draws samples of the net in it.
        matching: Mean and scatter of the data's descriptors.
        weight: Of the descriptors beside the loss before.
    """

    def __init__(
        self,
        objective: nn.Module,
        samples: PriorSamples,
        matching: DescriptorMatching,
        *,
        weight: float,
    ) -> None:
        super().__init__()
        self.objective, self.matching, self.weight = objective, matching, weight
        self.samples = samples
        # Samples change slowly here, so a gap may be averaged over more of what was made.
        self.matching.seen.fill_(STEPS_SEEN)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(self.samples.noises(1, torch.Generator()))
        noises, batch = tensors[:count], tensors[count:]
        total, shown = self.objective(*batch)
        clean, units, drop = (tensor[: len(noises[0])] for tensor in batch[:3])
        pull, gaps = self._match(clean, units, drop, noises)
        named = {f"{kind}_gap": gap for kind, gap in zip(KINDS, gaps, strict=True)}
        # The pull grows with the square of the gaps; its slope stays bounded far off, so that the
        # images come first.
        return total + self.weight * pull / (1 + pull.detach().abs().sqrt()), {**shown, **named}

    def _match(
        self, clean: Tensor, units: Tensor, drop: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        periodic = self.samples.periodic
        field, fractions = self.samples(clean, units, drop, noises)
        field = field - field.mean(1, keepdim=True)
        spread = field.flatten(1).std(1).clamp_min(1e-6)
        field = field / spread.view(-1, *[1] * (field.ndim - 1))
        made, soft = cut_through(field, fractions, periodic=periodic)
        with torch.autocast(made.device.type, enabled=False):
            # Values of the cut with the slopes of the soft phases: where there is no interface
            # yet, the surface of hard phases has no slope.
            hard = torch.cat(descriptors(made.detach(), periodic=periodic), 1)
            smooth = torch.cat(descriptors(soft, periodic=periodic), 1)
            return self.matching(hard + smooth - smooth.detach(), units, ~drop)


def match_prior(
    objective: nn.Module,
    draw: Draw,
    samples: PriorSamples,
    dataset: MicrostructureDataset,
    settings: MatchingSettings,
    before: TrainingSettings,
    *,
    parameter_dropout: float,
    folder: Path,
    identity: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Train on from where a training ended, samples matched; the objective's net is changed.

    Args:
        objective: The loss of the training before, with the trained net.
        draw: Draws its batches.
        samples: Draws samples of that net.
        dataset: What both learn from.
        settings: Of the matching.
        before: Settings of the training before.
        parameter_dropout: Share of process values hidden.
        folder: Of the checkpoints; repeat the call to resume.
        identity: What they belong to.
        progress: Called after each step.

    Raises:
        ConvergenceError: Training diverged.
    """
    matching = DescriptorMatching.fit(
        dataset,
        parameter_dropout=parameter_dropout,
        generator=generator_for(before.seed, "matching"),
    )
    matched = PriorMatching(objective, samples, matching, weight=settings.weight)
    state = train(
        matched,
        PriorDraw(draw, samples, settings.matched),
        n_samples=len(dataset),
        settings=settings.training(before),
        folder=folder,
        identity=identity,
        progress=progress,
    )
    matched.load_state_dict(state)
