"""The diffusion generator: contract, exactness, invariances, resume, and what it learns."""

import numpy as np
import pytest
import torch

from generators import ConditionalDiffusion, DiffusionSettings, train_diffusion
from generators.augmentation import augment
from generators.code_prior import fit_code_prior
from generators.denoiser import PhaseDenoiser
from generators.diffusion_training import initial_objective
from generators.phase_net import signed_indicators
from microstructures import CheckpointError, DataError, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings
from physics.processes import SpinodalDecomposition

SPACE = ProcessSpace(
    [Parameter("a", "-", 0.0, 1.0), Parameter("kind", "-", scale="choice", choices=("x", "y"))]
)


def untrained(dim=2, n_phases=3, periodic=True, **change):
    torch.manual_seed(1)
    net = PhaseDenoiser(
        space=SPACE,
        n_phases=n_phases,
        periodic=(periodic,) * dim,
        widths=(8, 8),
        blocks=1,
        latent_dim=8,
        features=16,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    arguments = {
        "space": SPACE,
        "voxel_size_um": 0.5,
        "periodic": (periodic,) * dim,
        "phase_names": [f"p{i}" for i in range(n_phases)],
        "match_fractions": False,
        **change,
    }
    return ConditionalDiffusion(net, **arguments)


@pytest.mark.parametrize(("dim", "shape"), [(2, (16, 8)), (3, (8, 8, 12))])
def test_samples_carry_their_contract(dim, shape):
    model = untrained(dim)
    samples = model.sample([{"a": 0.2}, {"a": 0.9, "kind": "y"}], n=2, shape=shape, seed=0)
    assert [s.process for s in samples] == [{"a": 0.2}] * 2 + [{"a": 0.9, "kind": "y"}] * 2
    assert all(s.shape == shape and s.n_phases == 3 and s.voxel_size_um == 0.5 for s in samples)


def test_a_sample_depends_on_seed_and_index_alone(monkeypatch):
    model = untrained()
    whole = model.sample({"a": 0.2}, n=5, shape=(16, 16), seed=3)
    monkeypatch.setattr("generators.generator.CHUNK_VOXELS", 2 * 16 * 16)
    parts = model.sample({"a": 0.2}, n=5, shape=(16, 16), seed=3)
    share = np.mean([np.mean(a.phases != b.phases) for a, b in zip(whole, parts, strict=True)])
    assert share < 1e-3  # batching may change the last bit of a logit
    other = model.sample({"a": 0.2}, n=1, shape=(16, 16), seed=4)[0]
    assert (other.phases != whole[0].phases).any()


@pytest.mark.parametrize(("dim", "shape"), [(2, (16, 16)), (3, (8, 8, 8))])
def test_asked_fractions_are_met_to_one_voxel(dim, shape):
    model = untrained(dim)
    for sample in model.sample({}, n=3, shape=shape, seed=0, volume_fraction=[0.2, 0.3, 0.5]):
        deviation = np.abs(sample.volume_fractions - [0.2, 0.3, 0.5]) * sample.phases.size
        assert deviation.max() <= 1


def test_decode_agrees_with_sample_and_is_differentiable():
    model = untrained()
    code = torch.randn(2, 8, requires_grad=True)
    process = {"a": 0.5, "kind": "x"}
    soft = model.decode(code, process, shape=(16, 16), seed=5)
    assert torch.allclose(soft.sum(1), torch.ones(2, 16, 16), atol=1e-5)
    hard = model.sample(process, n=2, shape=(16, 16), seed=5, latent=code.detach())
    agree = [np.mean(h.phases == s.argmax(0).numpy()) for h, s in zip(hard, soft, strict=True)]
    assert min(agree) > 0.999
    (soft * torch.rand_like(soft)).sum().backward()
    assert torch.isfinite(code.grad).all()
    assert code.grad.abs().sum() > 0


def test_gradient_of_decode_matches_finite_differences():
    model, weights = untrained(), torch.rand(1, 3, 8, 8)

    def value(code):
        soft = model.decode(code, {"a": 0.5}, shape=(8, 8), seed=5)
        return (soft * weights).double().sum()

    code = torch.zeros(1, 8, requires_grad=True)
    gradient = torch.autograd.grad(value(code), code)[0]
    direction = gradient / gradient.norm()
    with torch.no_grad():
        difference = (value(code + 0.1 * direction) - value(code - 0.1 * direction)) / 0.2
    assert float(difference) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_code_is_blind_to_position():
    model = untrained()
    sample = model.sample({"a": 0.3}, n=1, shape=(16, 16), seed=0)[0]
    moved = type(sample)(
        np.roll(sample.phases, (4, 8), (0, 1)),
        process=sample.process,
        phase_names=sample.phase_names,
    )
    codes = model.encode([sample, moved])
    assert codes.shape == (2, 8)
    assert torch.allclose(codes[0], codes[1], atol=1e-4)


def test_augmentation_keeps_fractions():
    phases = torch.randint(0, 3, (4, 8, 8), dtype=torch.uint8)
    out = augment(
        phases,
        periodic=(True, True),
        isotropic=True,
        flips=True,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(
        signed_indicators(out, 3).flatten(2).mean(2),
        signed_indicators(phases, 3).flatten(2).mean(2),
    )
    assert (out != phases).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": {"a": 2.0}}, "between 0 and 1"),
        ({"process": {"b": 2.0}}, "expected process parameters a, kind"),
        ({"shape": (15, 16)}, "multiples of 4"),
        ({"shape": (16,)}, "2 sides"),
        ({"latent": [0.0] * 7}, "codes of shape"),
        ({"latent": [float("nan")] * 8}, "finite codes"),
        ({"steps": 17}, "2 to 16 steps"),
        ({"volume_fraction": [0.5, 0.1, 0.1]}, "sum 1"),
        ({"n": 0}, "n >= 1"),
    ],
)
def test_bad_requests_are_named(change, words):
    request = {"process": {"a": 0.5}, "n": 1, "shape": (16, 16), "seed": 0, **change}
    process = request.pop("process")
    with pytest.raises(DataError, match=words):
        untrained().sample(process, **request)


def test_saved_model_gives_the_same_samples(tmp_path):
    model = untrained()
    model.save_pretrained(tmp_path / "m", card="untrained")
    again = ConditionalDiffusion.from_pretrained(tmp_path / "m")
    a, b = (m.sample({"a": 0.1}, n=1, shape=(16, 16), seed=0)[0] for m in (model, again))
    assert (a.phases == b.phases).all()
    weights = tmp_path / "m" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 4
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="SHA-256"):
        ConditionalDiffusion.from_pretrained(tmp_path / "m")


def spinodal_cells(n=24):
    alloy = SpinodalDecomposition()
    points = [
        {"composition": c, "temperature_k": 700.0, "ageing_time_h": 1.0}
        for c in np.linspace(0.4, 0.6, n)
    ]
    cells = alloy.simulate(points, shape=(16, 16), seed=0)
    return MicrostructureDataset.from_structures(cells, alloy.space)


def settings(**change):
    return DiffusionSettings(
        widths=(16, 16),
        features=32,
        latent_dim=8,
        training=TrainingSettings(batch_size=8, checkpoint_every=4, warmup_steps=5, **change),
    )


def test_resumed_training_equals_uninterrupted(tmp_path):
    data = spinodal_cells()
    whole = train_diffusion(data, settings(steps=8), tmp_path / "whole")

    def stop(step, total, numbers):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_diffusion(data, settings(steps=8), tmp_path / "parts", progress=stop)
    parts = train_diffusion(data, settings(steps=8), tmp_path / "parts")
    a, b = whole.denoiser.state_dict(), parts.denoiser.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_fraction_follows_composition_after_training(tmp_path):
    data = spinodal_cells(64)
    model = train_diffusion(data, settings(steps=400, learning_rate=3e-3), tmp_path / "m")
    process = {"temperature_k": 700.0, "ageing_time_h": 1.0}
    fractions = [
        np.mean(
            [
                s.volume_fractions[1]
                for s in model.sample({**process, "composition": c}, n=6, shape=(16, 16), seed=1)
            ]
        )
        for c in (0.42, 0.58)
    ]
    assert fractions[0] < 0.46
    assert fractions[1] > 0.54


def test_codes_of_the_data_are_standard_after_the_prior_is_fitted():
    data = spinodal_cells(48)
    net = initial_objective(data, settings(steps=1)).denoiser
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    nats = fit_code_prior(net, data, parameter_dropout=0.0, seed=0)
    assert nats >= 0
    with torch.no_grad():
        process = net.process(data.process_units)
        clean = signed_indicators(data.phases, 2)
        mean, log_variance = net.encode(clean, process)
        m, log_v = net.code_prior(process)
    second = ((mean - m).square() + log_variance.exp()) / log_v.exp()
    assert second.mean(0) == pytest.approx(torch.ones(8), abs=0.2)
    assert ((mean - m) / (log_v / 2).exp()).mean(0) == pytest.approx(torch.zeros(8), abs=0.2)
