"""Samples of the VAE's prior, brought to the data's physical descriptors after training."""

from collections.abc import Callable
from typing import cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from generators.descriptor_matching import KINDS, DescriptorMatching, descriptors
from generators.soft_cut import cut_through
from generators.vae_net import PhaseLadder
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for
from networks.training import Draw, TrainingSettings

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


class PriorDraw:
    """The batch of the evidence bound, after the noise that samples of the prior come from.

    Args:
        draw: Draws that batch.
        noises: Draws white noise of n samples, for the code and then for each rung.
        matched: Samples of the prior.
    """

    def __init__(
        self, draw: Draw, noises: Callable[[int, torch.Generator], list[Tensor]], matched: int
    ) -> None:
        self.draw, self.noises, self.matched = draw, noises, matched

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        tensors = self.draw(batch, generator)
        return [*self.noises(min(self.matched, len(batch)), generator), *tensors]


class PriorMatching(nn.Module):
    """The evidence bound, plus the descriptors of what the prior makes.

    A bound that is good on average leaves samples with errors in a known direction, since
    posteriors never fill the prior exactly. Here samples of the prior are cut at the fraction of
    a real cell of the same process, and mean and scatter of physical descriptors are brought to
    the data's at every process point (`DescriptorMatching`).

    Args:
        objective: The evidence bound, with the tensors of its own batch.
        net: The net in it.
        matching: Mean and scatter of the data's descriptors.
        weight: Of the descriptors beside the bound.
    """

    def __init__(
        self,
        objective: nn.Module,
        net: PhaseLadder,
        matching: DescriptorMatching,
        *,
        weight: float,
    ) -> None:
        super().__init__()
        self.objective, self.matching, self.weight = objective, matching, weight
        self._net = [net]  # a list: its weights are saved once, with the objective
        # Samples change slowly here, so a gap may be averaged over more of what was made.
        self.matching.seen.fill_(STEPS_SEEN)

    @classmethod
    def of_dataset(
        cls,
        objective: nn.Module,
        dataset: MicrostructureDataset,
        *,
        weight: float,
        parameter_dropout: float,
        seed: int,
    ) -> "PriorMatching":
        """Return the loss around a trained objective, for the descriptors of a dataset."""
        matching = DescriptorMatching.fit(
            dataset,
            parameter_dropout=parameter_dropout,
            generator=generator_for(seed, "matching"),
        )
        net = cast(PhaseLadder, objective.net)
        return cls(objective, net, matching, weight=weight)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        fields = 1 + sum(self._net[0].rungs)
        (code, *noises), batch = tensors[:fields], tensors[fields:]
        total, shown = self.objective(*batch)
        clean, units, drop = (tensor[: len(code)] for tensor in batch[:3])
        pull, gaps = self._match(clean, units, drop, code, noises)
        named = {f"{kind}_gap": gap for kind, gap in zip(KINDS, gaps, strict=True)}
        # The pull grows with the square of the gaps; its slope stays bounded far off, so that the
        # images come first.
        return total + self.weight * pull / (1 + pull.detach().abs().sqrt()), {**shown, **named}

    def _match(
        self, clean: Tensor, units: Tensor, drop: Tensor, code: Tensor, noises: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        (net,) = self._net
        periodic = net.config["periodic"]
        logits, _ = net(noises, net.condition(net.process(units, drop=drop), code))
        field = logits - logits.mean(1, keepdim=True)
        spread = field.flatten(1).std(1).clamp_min(1e-6)
        field = field / spread.view(-1, *[1] * (field.ndim - 1))
        made, soft = cut_through(field, (clean.flatten(2).mean(2) + 1) / 2, periodic=periodic)
        with torch.autocast(made.device.type, enabled=False):
            # Values of the cut with the slopes of the soft phases: where there is no interface
            # yet, the surface of hard phases has no slope.
            hard = torch.cat(descriptors(made.detach(), periodic=periodic), 1)
            smooth = torch.cat(descriptors(soft, periodic=periodic), 1)
            return self.matching(hard + smooth - smooth.detach(), units, ~drop)
