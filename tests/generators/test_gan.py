"""The GAN: contract, exactness, sharpness, codes, descriptor matching, resume, what it learns."""

import numpy as np
import pytest
import torch

from generators.descriptor_matching import DescriptorMatching, descriptors
from generators.fraction_head import fraction_loss
from generators.gan import ConditionalGAN
from generators.gan_net import PhaseGenerator
from generators.gan_training import (
    GanSettings,
    fit_fractions,
    initial_objective,
    train_gan,
)
from generators.phase_net import signed_indicators
from microstructures import DataError, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings
from physics.processes import SpinodalDecomposition
from physics.statistics import euler_density, lineal_path, specific_surface

SPACE = ProcessSpace(
    [Parameter("a", "-", 0.0, 1.0), Parameter("kind", "-", scale="choice", choices=("x", "y"))]
)


def untrained(dim=2, n_phases=3, *, periodic=True, match_fractions=True):
    torch.manual_seed(1)
    net = PhaseGenerator(
        space=SPACE,
        n_phases=n_phases,
        periodic=(periodic,) * dim,
        widths=(8, 8),
        blocks=(1, 1),
        latent_dim=8,
        features=16,
        encoder_widths=(8, 8),
    )
    for name, parameter in net.named_parameters():
        if not name.startswith("fields"):
            torch.nn.init.normal_(parameter, std=0.1)
    return ConditionalGAN(
        net,
        space=SPACE,
        voxel_size_um=0.5,
        periodic=(periodic,) * dim,
        phase_names=[f"p{i}" for i in range(n_phases)],
        match_fractions=match_fractions,
    )


@pytest.mark.parametrize(("dim", "shape"), [(2, (16, 8)), (3, (8, 8, 12))])
@pytest.mark.parametrize("n_phases", [2, 3])
def test_samples_carry_their_contract_and_meet_asked_fractions(dim, shape, n_phases):
    model = untrained(dim, n_phases)
    wanted = [0.2, 0.8] if n_phases == 2 else [0.2, 0.3, 0.5]
    samples = model.sample(
        [{"a": 0.2}, {"a": 0.9, "kind": "y"}], n=2, shape=shape, seed=0, volume_fraction=wanted
    )
    assert [s.process for s in samples] == [{"a": 0.2}] * 2 + [{"a": 0.9, "kind": "y"}] * 2
    for sample in samples:
        assert sample.shape == shape
        assert sample.n_phases == n_phases
        assert np.abs(sample.volume_fractions - wanted).max() * sample.phases.size <= 1


def test_a_sample_depends_on_seed_and_index_alone(monkeypatch):
    model = untrained()
    whole = model.sample({"a": 0.2}, n=5, shape=(16, 16), seed=3)
    monkeypatch.setattr("generators.generator.CHUNK_VOXELS", 2 * 16 * 16)
    parts = model.sample({"a": 0.2}, n=5, shape=(16, 16), seed=3)
    share = np.mean([np.mean(a.phases != b.phases) for a, b in zip(whole, parts, strict=True)])
    assert share < 1e-2  # batching may change the last bit of a field
    other = model.sample({"a": 0.2}, n=1, shape=(16, 16), seed=4)[0]
    assert (other.phases != whole[0].phases).any()


def test_soft_phases_are_sharp_agree_with_samples_and_have_slopes():
    model, process = untrained(n_phases=2), {"a": 0.5, "kind": "x"}
    code = torch.randn(2, 8, requires_grad=True)
    soft = model.decode(code, process, shape=(32, 32), seed=5, volume_fraction=0.4)
    assert torch.allclose(soft.sum(1), torch.ones(2, 32, 32), atol=1e-5)
    assert ((soft > 0.1) & (soft < 0.9)).float().mean() < 0.05
    assert (soft[:, 1].flatten(1).mean(1) - 0.4).abs().max() < 0.02
    hard = model.sample(
        process, n=2, shape=(32, 32), seed=5, latent=code.detach(), volume_fraction=0.4
    )
    agree = [np.mean(h.phases == s.argmax(0).numpy()) for h, s in zip(hard, soft, strict=True)]
    assert min(agree) > 0.98
    (soft * torch.rand_like(soft)).sum().backward()
    assert code.grad is not None
    assert torch.isfinite(code.grad).all()
    assert code.grad.abs().sum() > 0


def test_given_voxels_come_back_and_the_rest_grows_around_them():
    model = untrained(n_phases=2)
    given = torch.full((32, 32), -1)
    given[:, 8:16] = (torch.arange(32) // 8 % 2)[:, None]
    request = {"process": {"a": 0.5}, "n": 4, "shape": (32, 32), "seed": 0}
    kept, free = (
        np.stack([s.phases for s in model.sample(**request, given=g)]) for g in (given, None)
    )
    assert (kept[:, given >= 0] == given[given >= 0].numpy()).all()
    beside = given[:, 15].numpy()
    assert np.mean(kept[:, :, 16] == beside) > 0.75 > np.mean(free[:, :, 16] == beside)


def test_periodic_axes_have_no_seam_and_any_size_fits():
    model = untrained(n_phases=2)
    cells = model.sample({"a": 0.5}, n=16, shape=(32, 48), seed=0)
    phases = np.stack([c.phases for c in cells]).astype(float)
    steps = np.abs(np.diff(phases, axis=1, append=phases[:, :1])).mean((0, 2))
    assert steps[-1] == pytest.approx(steps[:-1].mean(), abs=4 * steps[:-1].std())


def test_shipped_samples_have_no_seam_and_the_fraction_of_their_process():
    model = ConditionalGAN.from_pretrained("spinodal-2d-gan")
    points = [{"composition": c, "temperature_k": 720.0} for c in np.linspace(0.4, 0.6, 60)]
    cells = model.sample(points, n=4, shape=(64, 64), seed=0)
    phases = np.stack([c.phases for c in cells]).astype(float)
    steps = np.abs(np.roll(phases, -1, 2) - phases).mean((0, 1))
    assert steps[-1] == pytest.approx(steps.mean(), rel=0.08)
    fractions = phases.mean((1, 2)).reshape(60, 4).mean(1)
    slope = np.polyfit(np.linspace(0.4, 0.6, 60), fractions, 1)[0]
    assert slope > 1.0  # of the compositions, coexisting phases take up more than their share


def test_shipped_volumes_follow_the_composition_and_coarsen_with_time():
    model = ConditionalGAN.from_pretrained("spinodal-3d-gan")
    points = [
        {"composition": c, "temperature_k": 720.0, "ageing_time_h": t}
        for c, t in [(0.42, 2.0), (0.58, 2.0), (0.5, 1.1), (0.5, 5.8)]
    ]
    cells = model.sample(points, n=2, shape=(48, 48, 48), seed=0)
    phases = torch.from_numpy(np.stack([c.phases for c in cells]))
    shares = phases.double().flatten(1).mean(1).view(4, 2).mean(1)
    assert float(shares[1] - shares[0]) > 0.16
    surface = specific_surface(phases).view(4, 2).mean(1)
    assert float(surface[3] / surface[2]) < 0.9
    every = [lineal_path(phases == k, max_lag=6)[:, :, 6].mean(0) for k in (0, 1)]
    for along in every:  # no axis is special
        assert along.std() < 0.1 * along.mean()


def test_a_shape_that_does_not_fit_is_named():
    with pytest.raises(DataError, match="multiples of 4"):
        untrained().sample({"a": 0.5}, n=1, shape=(15, 16), seed=0)


def test_saved_model_gives_the_same_samples(tmp_path):
    model = untrained()
    model.save_pretrained(tmp_path / "m", card="untrained")
    again = ConditionalGAN.from_pretrained(tmp_path / "m")
    a, b = (m.sample({"a": 0.1}, n=1, shape=(16, 16), seed=0)[0] for m in (model, again))
    assert (a.phases == b.phases).all()


def spinodal_cells(n=48):
    alloy = SpinodalDecomposition()
    points = [
        {"composition": c, "temperature_k": 700.0, "ageing_time_h": 1.0}
        for c in np.linspace(0.4, 0.6, n)
    ]
    cells = alloy.simulate(points, shape=(16, 16), seed=0)
    return MicrostructureDataset.from_structures(cells, alloy.space)


def settings(**change):
    training = {
        "batch_size": 4,
        "checkpoint_every": 3,
        "warmup_steps": 2,
        "gradient_clip": 1e4,
        **change,
    }
    return GanSettings(
        widths=(8, 8),
        blocks=(1, 1),
        critic_widths=(8, 8),
        encoder_widths=(8, 8),
        features=16,
        matching_steps=2,
        training=TrainingSettings(**training),
    )


def test_descriptors_of_hard_phases_are_those_of_the_statistics():
    x = signed_indicators(spinodal_cells(4).phases, 2)
    s2, directed, path, surface, euler = descriptors(x, periodic=(True, True))
    phase = (x[:, 1] > 0).float()
    assert torch.allclose(surface[:, 0], specific_surface(phase))
    assert torch.allclose(euler[:, 1], euler_density(phase))
    # A segment of one step lies in the phase when both of its ends do.
    neighbours = torch.stack([(phase * phase.roll(-1, a)).mean((1, 2)) for a in (1, 2)], 1)
    assert torch.allclose(path.view(4, 2, 2, -1)[:, 1, :, 0], neighbours)
    assert s2.shape == (4, 4)
    diagonal = (phase * phase.roll((-1, 1), (1, 2))).mean((1, 2))
    assert (directed - diagonal[:, None]).abs().min(1).values.max() < 1e-6


def test_matching_finds_no_gap_in_the_data_and_closes_one():
    data = spinodal_cells(64)
    matching = DescriptorMatching.fit(
        data, parameter_dropout=0.0, generator=torch.Generator().manual_seed(0)
    )
    real = torch.cat(descriptors(signed_indicators(data.phases, 2), periodic=(True, True)), 1)
    known = torch.ones(64, 3, dtype=torch.bool)
    _, none = matching(real, data.process_units, known)
    assert none.max() < 0.5
    scatter = real.std(0)
    shift = (3 * scatter).requires_grad_()
    for _ in range(30):
        loss, gaps = matching(real + shift, data.process_units, known)
    assert gaps.min() > 1
    (slope,) = torch.autograd.grad(loss, shift)
    useful = scatter > 1e-3
    assert (slope[useful] > 0).float().mean() > 0.9  # descent takes the shift back


def test_matching_tells_choices_and_unknown_values_apart():
    matching = DescriptorMatching(SPACE, [3])
    units = torch.tensor([[0.2, 0.25], [0.2, 0.75], [float("nan"), 0.75]])
    known = torch.ones(3, 2, dtype=torch.bool)
    features = matching.features(units, known)
    assert len(torch.unique(features, dim=0)) == 3
    known[0, 1] = known[1, 1] = False
    hidden = matching.features(units, known)
    assert torch.equal(hidden[0], hidden[1])
    assert torch.isfinite(hidden).all()


def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("generators.gan_training.FIT_STEPS", 2)
    data = spinodal_cells()
    whole = train_gan(data, settings(steps=6), tmp_path / "whole")

    def stop(step, total, numbers):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gan(data, settings(steps=6), tmp_path / "parts", progress=stop)
    parts = train_gan(data, settings(steps=6), tmp_path / "parts")
    a, b = whole.net.state_dict(), parts.net.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_critic_and_net_learn_from_their_own_losses_alone():
    data = spinodal_cells(8)
    judge = initial_objective(data, settings(steps=1)).judge
    for parameter in judge.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    real = signed_indicators(data.phases[:4], 2)
    units, drop = data.process_units[:4], torch.zeros(4, 3, dtype=torch.bool)
    made = torch.randn(4, 2, 16, 16, requires_grad=True)
    loss, shown = judge.contest(real, made, units, drop)
    loss.backward()
    # The net's loss falls with the score of what it made, the critic's rises with it.
    (slope,) = torch.autograd.grad(judge.critic(made, units, drop).sum(), made)
    assert (slope * made.grad).sum() < 0
    assert shown["critic"] > 0


def test_fractions_fit_the_composition_whatever_the_code(monkeypatch):
    monkeypatch.setattr("generators.gan_training.FIT_STEPS", 600)
    data = spinodal_cells(64)
    net = initial_objective(data, settings(steps=1)).net
    likelihood = fit_fractions(net, data, parameter_dropout=0.0, seed=0)
    condition = net.condition(net.process(data.process_units), torch.randn(64, 8))
    actual = (signed_indicators(data.phases, 2).flatten(2).mean(2) + 1) / 2
    loss = fraction_loss(net, condition, actual)
    error = (net.fractions(condition)[0] - actual).square().mean().sqrt()
    assert likelihood > 2
    assert error < 0.02
    assert float(loss.detach()) < -2
