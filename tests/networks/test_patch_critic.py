"""The critic of patches: what each score looks at, and its gradient penalty."""

import pytest
import torch

from networks.patch_critic import PatchCritic, patch_penalty


@pytest.mark.parametrize("dim", [2, 3])
def test_each_score_looks_at_its_own_patch(dim):
    torch.manual_seed(0)
    critic = PatchCritic(in_channels=2, widths=(4, 4), periodic=(True,) * dim)
    image, field = torch.randn(2, 1, 1, *[32] * dim)
    changed = field.clone()
    changed[(..., *[3] * dim)] += 5
    moved = (critic(image, field) - critic(image, changed)).detach().abs() > 1e-6
    moved = moved.view([8] * dim)
    assert bool(moved[(0,) * dim])
    assert int(moved.sum()) <= 5**dim
    shifted = critic(image.roll(8, 2), field.roll(8, 2)).view(1, *[8] * dim)
    assert torch.allclose(shifted.roll(-2, 1), critic(image, field).view(1, *[8] * dim), atol=1e-5)


def test_the_penalty_of_a_linear_critic_is_half_its_squared_slope():
    """With one level and the rectifier's upper slope alone, the critic is linear."""
    torch.manual_seed(0)
    critic = PatchCritic(in_channels=2, widths=(3,), periodic=(True, True))
    with torch.no_grad():
        for module in (critic.first, critic.last):
            module.convolution.weight.zero_()
        # One channel adds up the four voxels of its block, and the score is ten times it.
        critic.first.convolution.weight[0, 4:, 1, 1] = 1.0
        critic.last.convolution.weight[0, 0, 1, 1] = 10.0
    image, field = torch.rand(2, 2, 1, 16, 16)
    scores = critic(image, field)
    blocks = 10 * field.unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2)).flatten(1)
    offset = scores - blocks
    assert torch.allclose(offset, offset[:1, :1].expand_as(offset), atol=1e-4)
    # 256 slopes of 10 over the root of 64 patches.
    penalty = float(patch_penalty(critic, image, field).detach())
    assert penalty == pytest.approx(0.5 * 256 * (10 / 8) ** 2, rel=1e-4)
