"""Volumes from models of sections: what they share, what they keep, and how they are refused."""

import numpy as np
import pytest
import torch

from generators import ConditionalDiffusion
from generators.ancestral import ancestral_logits
from generators.denoiser import PhaseDenoiser
from generators.diffusion_training import DiffusionSettings, train_diffusion
from generators.section_denoiser import OPINIONS, SectionDenoiser
from generators.section_diffusion import SectionDiffusion
from microstructures import (
    DataError,
    Microstructure,
    MicrostructureDataset,
    Parameter,
    ProcessSpace,
)
from networks.training import TrainingSettings

SPACE = ProcessSpace([Parameter("speed", "m/s", 0.0, 1.0)])
PROCESS = {"speed": 0.4}


def section_model(seed: int = 0, *, n_phases: int = 2, periodic=(True, True)):
    torch.manual_seed(seed)
    net = PhaseDenoiser(
        space=SPACE,
        n_phases=n_phases,
        periodic=periodic,
        widths=(8, 8),
        blocks=1,
        latent_dim=3,
        features=16,
    )
    return ConditionalDiffusion(
        net,
        space=SPACE,
        voxel_size_um=0.5,
        periodic=periodic,
        phase_names=[f"phase {k}" for k in range(n_phases)],
        match_fractions=False,
    )


def opinions(net: SectionDenoiser, x: torch.Tensor) -> torch.Tensor:
    condition = net.condition(net.process(torch.tensor([[0.4]])), torch.zeros(1, 3))
    return net(x, torch.tensor([2.0]), condition)


def test_a_voxel_has_its_evidence_once_and_the_contexts_of_three_sections():
    models = [section_model(seed) for seed in range(3)]
    net = SectionDiffusion.of_sections(*models).net
    x = torch.randn(1, 2, 8, 12, 16, generator=torch.Generator().manual_seed(1))
    volume = opinions(net, x)
    at = (3, 5, 7)
    evidence = 2 * x[(0, slice(None), *at)] / 2.0**2
    expected = evidence.clone()
    for normal, model in enumerate(models):
        plane = [index for axis, index in enumerate(at) if axis != normal]
        flat = model.denoiser
        condition = flat.condition(flat.process(torch.tensor([[0.4]])), torch.zeros(1, 3))
        logits = flat(x.select(2 + normal, at[normal]), torch.tensor([2.0]), condition)
        expected += OPINIONS * (logits[0, :, plane[0], plane[1]] - evidence) / 3
    torch.testing.assert_close(volume[(0, slice(None), *at)], expected, rtol=1e-4, atol=1e-5)


def test_shifting_the_noise_shifts_the_opinion():
    net = SectionDiffusion.of_sections(section_model()).net
    x = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    shift, axes = [net.size_multiple] * 3, [2, 3, 4]
    moved = opinions(net, x.roll(shift, axes))
    torch.testing.assert_close(moved, opinions(net, x).roll(shift, axes), rtol=1e-4, atol=1e-5)


def test_one_model_serves_all_three_normals():
    model = section_model()
    once = SectionDiffusion.of_sections(model)
    thrice = SectionDiffusion.of_sections(model, model, model)
    request = {"shape": (8, 8, 8), "seed": 3, "steps": 3}
    a, b = (v.sample(PROCESS, **request)[0].phases for v in (once, thrice))
    np.testing.assert_array_equal(a, b)


def test_fractions_and_given_voxels_are_exact_with_three_phases():
    volumes = SectionDiffusion.of_sections(section_model(n_phases=3))
    given = torch.full((8, 8, 8), -1)
    given[2] = torch.randint(3, (8, 8), generator=torch.Generator().manual_seed(0))
    made = volumes.sample(
        PROCESS, shape=(8, 8, 8), seed=0, steps=3, given=given, volume_fraction=[0.25, 0.5, 0.25]
    )[0]
    np.testing.assert_array_equal(made.phases[2], given[2].numpy())
    assert np.bincount(made.phases.ravel()).tolist() == [128, 256, 128]
    assert made.periodic == (True, True, True)


def test_a_saved_model_draws_the_same_volumes(tmp_path):
    volumes = SectionDiffusion.of_sections(*[section_model(seed) for seed in range(3)])
    volumes.save_pretrained(tmp_path / "model")
    loaded = SectionDiffusion.from_pretrained(tmp_path / "model")
    request = {"shape": (8, 12, 8), "seed": 5, "steps": 2}
    for before, after in zip(
        volumes.sample(PROCESS, n=2, **request), loaded.sample(PROCESS, n=2, **request), strict=True
    ):
        np.testing.assert_array_equal(before.phases, after.phases)
    codes = [v.encode(volumes.sample(PROCESS, **request)) for v in (volumes, loaded)]
    torch.testing.assert_close(*codes)
    assert codes[0].shape == (1, 3)


def test_walls_belong_to_the_axes_that_have_them():
    # Sections normal to 0 show axes 1 and 2, normal to 1 show 0 and 2, normal to 2 show 0 and 1.
    models = [
        section_model(0, periodic=(True, False)),
        section_model(1, periodic=(True, False)),
        section_model(2, periodic=(True, True)),
    ]
    assert SectionDiffusion.of_sections(*models).periodic == (True, True, False)
    with pytest.raises(DataError, match="agree on which axes are periodic"):
        SectionDiffusion.of_sections(*reversed(models))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([section_model(), section_model()], "one model of sections, or three"),
        ([section_model(), section_model(n_phases=3), section_model()], "one voxel size and phase"),
        ([section_model(periodic=(True,) * 3)], "2-D sections"),
    ],
)
def test_models_that_do_not_fit_together_are_refused(models, message):
    with pytest.raises(DataError, match=message):
        SectionDiffusion.of_sections(*models)


def test_volumes_have_the_interfaces_of_their_sections():
    flat = ConditionalDiffusion.from_pretrained("spinodal-2d-diffusion")
    volumes = SectionDiffusion.of_sections(flat)
    process = {"composition": 0.5, "temperature_k": 720.0, "ageing_time_h": 1.5}

    def interfaces(cells) -> float:
        return float(np.mean([_unlike(c.phases) for c in cells]))

    sections = interfaces(flat.sample(process, n=32, shape=(32, 32), seed=0))
    made = interfaces(volumes.sample(process, shape=(24, 24, 24), seed=0))
    assert 0.92 * sections < made < 1.08 * sections


def test_opinions_are_fitted_to_the_sections_and_kept(tmp_path):
    volumes = SectionDiffusion.of_sections(section_model())
    fitted = volumes.fit_opinions(PROCESS, shape=(8, 8, 8), seed=0)
    assert 1.0 <= fitted <= 4.0
    assert fitted != OPINIONS
    volumes.save_pretrained(tmp_path / "model")
    loaded = SectionDiffusion.from_pretrained(tmp_path / "model")
    assert loaded.net.config["opinions"] == fitted


def test_volumes_have_the_interfaces_that_their_sections_are_known_to_have(tmp_path):
    volumes = SectionDiffusion.of_sections(section_model())
    volumes.fit_opinions(PROCESS, shape=(8, 8, 8), seed=0, interfaces=0.3)
    volumes.save_pretrained(tmp_path / "model")
    loaded = SectionDiffusion.from_pretrained(tmp_path / "model")
    made = loaded.sample(PROCESS, shape=(16, 16, 16), seed=0, steps=3, volume_fraction=0.5)[0]
    assert _unlike(made.phases) == pytest.approx(0.3, rel=0.02)


def test_more_opinions_make_fewer_interfaces():
    volumes = SectionDiffusion.of_sections(
        ConditionalDiffusion.from_pretrained("spinodal-2d-diffusion")
    )
    net = volumes.net
    condition = net.condition(net.process(torch.full((1, 3), 0.5)), torch.zeros(1, net.latent_dim))
    counts = []
    for opinions in (1.0, 2.5):
        net.opinions = opinions
        logits = ancestral_logits(
            net,
            [torch.Generator().manual_seed(0)],
            condition,
            size=(2, 16, 16, 16),
            steps=8,
            fractions=torch.tensor([[0.5, 0.5]], dtype=torch.float64),
        )
        counts.append(_unlike(logits.argmax(1)[0].numpy()))
    assert counts[1] < 0.95 * counts[0]


def test_sections_without_a_process_teach_their_fractions_and_no_code(tmp_path):
    generator = torch.Generator().manual_seed(0)
    crops = [
        Microstructure(
            (torch.rand(16, 16, generator=generator) < 0.3).to(torch.uint8).numpy(),
            periodic=(False, False),
            phase_names=("grain", "pore"),
        )
        for _ in range(8)
    ]
    data = MicrostructureDataset.from_structures(crops, ProcessSpace([]))
    settings = DiffusionSettings(
        widths=(8, 8), features=16, latent_dim=1, code_nats=0.0, training=TrainingSettings(steps=1)
    )
    model = train_diffusion(data, settings, tmp_path / "model")
    net = model.net
    process = net.process(torch.zeros(2, 0))
    one, other = net.condition(process, torch.tensor([[-2.0], [2.0]]))
    torch.testing.assert_close(one, other)
    share = float((data.phases == 1).float().mean())
    volume = SectionDiffusion.of_sections(model).sample({}, shape=(8, 8, 8), seed=0, steps=2)[0]
    assert volume.periodic == (False, False, False)
    assert float(volume.volume_fractions[1]) == pytest.approx(share, abs=0.02)


def _unlike(labels: np.ndarray) -> float:
    return float(np.mean([(labels != np.roll(labels, 1, a)).mean() for a in range(labels.ndim)]))
