"""The VAE: exact prior, locality, sharp and differentiable decoding, training, resume."""

import numpy as np
import pytest
import torch

from generators.fraction_head import fit_fraction_head
from generators.fractions import cut_exactly
from generators.prior_matching import MatchingSettings
from generators.vae import ConditionalVAE
from generators.vae_net import Rung
from generators.vae_training import VaeSettings, initial_objective, train_vae
from microstructures import DataError, MicrostructureDataset
from networks import TrainingSettings
from physics.processes import SpinodalDecomposition

PROCESS = {"temperature_k": 700.0, "ageing_time_h": 1.0}


def spinodal_cells(n=24, shape=(16, 16)):
    alloy = SpinodalDecomposition()
    points = [{"composition": c, **PROCESS} for c in np.linspace(0.4, 0.6, n)]
    return MicrostructureDataset.from_structures(
        alloy.simulate(points, shape=shape, seed=0), alloy.space
    )


def settings(*, matching=0, **change):
    return VaeSettings(
        widths=(16, 16),
        rungs=(1, 1),
        noise_channels=(2, 4),
        features=32,
        latent_dim=4,
        matching=MatchingSettings(steps=matching, matched=4, learning_rate=1e-3),
        training=TrainingSettings(batch_size=8, checkpoint_every=4, warmup_steps=5, **change),
    )


def untrained(std=0.2):
    data = spinodal_cells(8)
    net = initial_objective(data, settings()).net
    generator = torch.Generator().manual_seed(3)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return ConditionalVAE.of_dataset(net, data, match_fractions=True)


def fields(model, shape, n=1):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, *size, generator=generator) for size in model.ladder.noise_shapes(shape)]


def condition(model, n=1):
    units = torch.tensor([[0.5, 0.2, 0.3]]).repeat(n, 1)
    return model.net.condition(model.net.process(units), torch.zeros(n, model.latent_dim))


def test_the_divergence_of_a_rung_is_that_of_its_gaussians():
    rung = Rung(4, 3, 2, 8, (True, True))
    for parameter in rung.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        rung.convolution_out.convolution.weight.zero_()
        rung.convolution_out.convolution.bias.zero_()
    state, evidence = torch.randn(2, 4, 4, 4), torch.randn(2, 3, 4, 4)
    _, nats = rung(state, torch.randn(2, 8), torch.randn(2, 2, 4, 4), evidence)
    shown = torch.cat([torch.nn.functional.leaky_relu(state, 0.2), evidence], 1)
    mean, log_sd = rung.posterior(shown).chunk(2, 1)
    posterior = torch.distributions.Normal(mean, (3 * torch.tanh(log_sd / 3)).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).flatten(1).sum(1)
    assert torch.allclose(nats, expected, rtol=1e-4)
    assert (rung(state, torch.randn(2, 8), torch.randn(2, 2, 4, 4), None)[1] == 0).all()


def test_shifted_noise_gives_the_shifted_structure():
    model = untrained()
    noise, z = fields(model, (16, 24)), condition(model)
    moved = [field.roll(field.shape[2] // 4, 2) for field in noise]
    logits, _ = model.ladder(noise, z)
    assert torch.allclose(model.ladder(moved, z)[0], logits.roll(4, 2), atol=1e-4)


def test_distant_noise_changes_nothing_here():
    model = untrained()
    noise, z = fields(model, (96, 16)), condition(model)
    other = [field.clone() for field in noise]
    for field in other:
        field[:, :, : field.shape[2] // 12] += 1
    change = (model.ladder(other, z)[0] - model.ladder(noise, z)[0]).abs().amax((0, 1, 3))
    assert change[:8].min() > 1e-3
    assert change[40:64].max() < 1e-5


def test_decode_agrees_with_sample_and_its_gradient_with_differences():
    model = untrained()
    code = torch.full((2, 4), 0.3, requires_grad=True)
    process = {"composition": 0.5, **PROCESS}
    soft = model.decode(code, process, shape=(16, 16), seed=5)
    hard = model.sample(process, n=2, shape=(16, 16), seed=5, latent=code.detach())
    assert torch.allclose(soft.sum(1), torch.ones(2, 16, 16), atol=1e-5)
    for sample, phases in zip(hard, soft.detach(), strict=True):
        cut = cut_exactly(phases[None].log(), torch.tensor(sample.volume_fractions)[None])
        assert (sample.phases == cut[0].numpy()).mean() > 0.99
    weights = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(7))
    model = untrained(0.1)  # smooth enough for differences in single precision
    model.match_fractions = False  # offsets are held constant in the gradient

    def value(z):
        soft = model.decode(z, process, shape=(16, 16), seed=5)
        return (soft * weights).double().sum()

    z = torch.zeros(1, 4, requires_grad=True)
    gradient = torch.autograd.grad(value(z), z)[0]
    direction = gradient / gradient.norm()
    with torch.no_grad():
        difference = (value(z + 0.03 * direction) - value(z - 0.03 * direction)) / 0.06
    assert float(difference) == pytest.approx(float(gradient.norm()), rel=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"steps": 2}, "1 to 1 steps"), ({"shape": (10, 16)}, "multiples of 4")],
)
def test_bad_requests_are_named(change, words):
    with pytest.raises(DataError, match=words):
        untrained().sample({}, **{"shape": (16, 16), "seed": 0, **change})


def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("generators.fraction_head.STEPS", 5)
    data = spinodal_cells(12)
    whole = train_vae(data, settings(steps=6, matching=4), tmp_path / "whole")

    def stop(step, total, numbers):
        if (step, total) in {(5, 6), (2, 4)} - stopped:
            stopped.add((step, total))
            raise KeyboardInterrupt

    stopped = set()
    for _ in range(2):  # in the evidence bound, then in the matching
        with pytest.raises(KeyboardInterrupt):
            train_vae(data, settings(steps=6, matching=4), tmp_path / "parts", progress=stop)
    parts = train_vae(data, settings(steps=6, matching=4), tmp_path / "parts")
    a, b = whole.net.state_dict(), parts.net.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_cells_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="multiples of 4"):
        train_vae(spinodal_cells(4, (18, 18)), settings(steps=1), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_fitted_head_knows_the_fractions_of_the_data(monkeypatch):
    monkeypatch.setattr("generators.fraction_head.STEPS", 600)
    data = spinodal_cells(48)
    net = untrained().net.requires_grad_(True)
    torch.nn.init.zeros_(net.code.weight)  # an untrained code is noise
    assert data.phases.float().mean((1, 2)).std() > 0.05
    assert fit_fraction_head(net, data, parameter_dropout=0.1, seed=0) < 0.03


@pytest.mark.slow
def test_images_are_told_apart_and_samples_follow_the_composition(tmp_path):
    data, shown = spinodal_cells(64), []
    model = train_vae(
        data,
        settings(steps=400, learning_rate=3e-3, matching=20),
        tmp_path / "m",
        progress=lambda step, total, numbers: shown.append(numbers["cross_entropy"]),
    )
    assert np.mean(shown[-20:]) < 0.25  # 0.69 for a net that knows nothing
    found = [
        np.mean(
            [
                sample.volume_fractions[1]
                for sample in model.sample(
                    {"composition": c, **PROCESS}, n=6, shape=(16, 16), seed=1
                )
            ]
        )
        for c in (0.42, 0.58)
    ]
    assert found[0] < 0.46
    assert found[1] > 0.54
