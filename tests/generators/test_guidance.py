"""Classifier-free guidance: nothing at weight 1, linear in the weight, saved with the model."""

import pytest
import torch

from generators import ConditionalDiffusion
from generators.denoiser import PhaseDenoiser
from generators.guidance import GuidedDenoiser
from microstructures import DataError, Parameter, ProcessSpace

SPACE = ProcessSpace(
    [Parameter("x", "-", 0.0, 1.0), Parameter("kind", "-", scale="choice", choices=("a", "b"))]
)


def model() -> ConditionalDiffusion:
    torch.manual_seed(2)
    net = PhaseDenoiser(
        space=SPACE,
        n_phases=2,
        periodic=(True, True),
        widths=(8, 8),
        blocks=1,
        latent_dim=4,
        features=16,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return ConditionalDiffusion(
        net,
        space=SPACE,
        voxel_size_um=1.0,
        periodic=(True, True),
        phase_names=("a", "b"),
        match_fractions=False,
    )


def logits(net, weight=None):
    torch.manual_seed(3)
    guided = net if weight is None else GuidedDenoiser(net, weight)
    code, noisy = torch.randn(2, 4), torch.randn(2, 2, 8, 8)
    condition = guided.condition(guided.process(torch.tensor([[0.2, 0.1], [0.9, 0.7]])), code)
    return guided(noisy, torch.full((2,), 2.0), condition)


def test_guidance_extends_the_line_from_unknown_to_known():
    net = model().denoiser.eval()
    with torch.no_grad():
        plain, once, twice = logits(net), logits(net, 1.0), logits(net, 2.0)
        thrice = logits(net, 3.0)
    assert torch.allclose(plain, once, atol=1e-5)
    assert (twice - once).abs().max() > 1e-3
    assert torch.allclose(thrice - twice, twice - once, atol=1e-4)


def test_an_unknown_process_cannot_be_guided():
    plain = model()
    cells = plain.sample({}, n=2, shape=(16, 16), seed=0)
    guided = plain.guided(4.0).sample({}, n=2, shape=(16, 16), seed=0)
    assert all((a.phases == b.phases).mean() > 0.97 for a, b in zip(cells, guided, strict=True))


def test_a_guided_model_is_saved_with_its_weight(tmp_path):
    guided = model().guided(2.5)
    process = {"x": 0.3, "kind": "b"}
    cells = guided.sample(process, n=2, shape=(16, 16), seed=1)
    loaded = ConditionalDiffusion.from_pretrained(guided.save_pretrained(tmp_path / "guided"))
    again = loaded.sample(process, n=2, shape=(16, 16), seed=1)
    assert all((a.phases == b.phases).all() for a, b in zip(cells, again, strict=True))
    assert loaded.guided(1.5).net.config["guidance"] == 1.5
    assert any((a.phases != b.phases).any()
               for a, b in zip(cells, model().sample(process, n=2, shape=(16, 16), seed=1),
                               strict=True))  # fmt: skip


def test_a_weight_beyond_reason_is_refused():
    with pytest.raises(DataError, match="guidance between 1 and 5"):
        model().guided(7.0)
