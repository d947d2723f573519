"""Who says how near made images are to real ones: physical descriptors, and a learning critic."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from generators.descriptor_matching import KINDS, DescriptorMatching, descriptors
from microstructures.dataset import MicrostructureDataset
from networks.critic import Critic, gradient_penalty, relativistic_loss


class Judge(nn.Module):
    """Descriptor matching and a critic for images of one kind: whole cells, or plane sections.

    Args:
        critic: Tells real from made images.
        matching: Mean and scatter of the real images' descriptors.
        periodic: One flag per axis of the images.
        penalty: Weight of R1 and R2.
        penalised: Images of either side that R1 and R2 see at each step.
    """

    def __init__(
        self,
        critic: Critic,
        matching: DescriptorMatching,
        *,
        periodic: Sequence[bool],
        penalty: float,
        penalised: int,
    ) -> None:
        super().__init__()
        self.critic, self.matching = critic, matching
        self.periodic = tuple(periodic)
        self.penalty, self.penalised = penalty, penalised

    @classmethod
    def of_dataset(
        cls,
        dataset: MicrostructureDataset,
        *,
        widths: Sequence[int],
        features: int,
        parameter_dropout: float,
        penalty: float,
        penalised: int,
        generator: torch.Generator,
    ) -> "Judge":
        """Return the judge of images like a dataset's; torch's own seed draws the weights."""
        matching = DescriptorMatching.fit(
            dataset, parameter_dropout=parameter_dropout, generator=generator
        )
        critic = Critic(
            space=dataset.space,
            n_phases=dataset.n_phases,
            periodic=dataset.periodic,
            widths=widths,
            features=features,
        )
        return cls(
            critic, matching, periodic=dataset.periodic, penalty=penalty, penalised=penalised
        )

    def pull(
        self,
        made: Float[Tensor, "batch phase *space"],
        soft: Float[Tensor, "batch phase *space"],
        units: Float[Tensor, "batch parameter"],
        drop: Bool[Tensor, "batch parameter"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of the descriptors of made images, and their gaps in scatters.

        Descriptors of the cut with the slopes of the soft phases' own: a surface of hard phases,
        for one, has no slope where there is none yet.
        """
        with torch.autocast(made.device.type, enabled=False):
            smooth = torch.cat(descriptors(soft, periodic=self.periodic), 1)
            hard = torch.cat(descriptors(made.detach(), periodic=self.periodic), 1)
            loss, gaps = self.matching(hard + smooth - smooth.detach(), units, ~drop)
        return loss, {f"{kind}_gap": gap for kind, gap in zip(KINDS, gaps, strict=True)}

    def contest(
        self,
        real: Float[Tensor, "batch phase *space"],
        made: Float[Tensor, "batch phase *space"],
        units: Float[Tensor, "batch parameter"],
        drop: Bool[Tensor, "batch parameter"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the losses of critic and generator for a simultaneous step.

        The critic learns from images without a path to the generator, the generator through a
        copy of the critic without a path to its weights.
        """
        frozen = {k: v.detach() for k, v in self.critic.named_parameters()}
        score_real = self.critic(real, units, drop)
        score_made = self.critic(made.detach(), units, drop)
        judged = functional_call(self.critic, frozen, (made, units, drop))
        critic_loss = relativistic_loss(score_real, score_made)
        net_loss = relativistic_loss(judged, score_real.detach())
        few = slice(0, self.penalised)
        both = torch.cat([real[few], made[few]])
        steep = gradient_penalty(self.critic, both, units[few].repeat(2, 1), drop[few].repeat(2, 1))
        numbers = {
            "critic": critic_loss.detach(),
            "slope": steep.detach(),
            "margin": (score_real - score_made).mean().detach(),
        }
        return critic_loss + net_loss + 2 * self.penalty * steep, numbers
