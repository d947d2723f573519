"""Slice critics: volumes trained on sections alone, one kind or three."""

import numpy as np
import pytest
import torch

from generators.families import load_generator, train_generator
from generators.gan import ConditionalGAN
from generators.gan_training import GanSettings
from generators.plane_sections import all_sections, section_dataset
from generators.section_draw import SectionDraw, expected_shares
from generators.section_training import (
    chosen_sections,
    initial_section_objective,
    train_gan_on_sections,
)
from generators.vae_training import VaeSettings
from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings

SPACE = ProcessSpace([Parameter("a", "-", 0.0, 1.0)])


def planes(n=12, *, fraction=0.5, points=3):
    """Sections without order."""
    draw = np.random.default_rng(0)
    made = []
    for k in range(n):
        phases = draw.random((16, 16)) < fraction
        made.append(
            Microstructure(
                phases=phases.astype(np.uint8),
                voxel_size_um=0.5,
                periodic=(True, True),
                process={"a": k % points / points},
                phase_names=("x", "y"),
            )
        )
    return MicrostructureDataset.from_structures(made, SPACE)


def settings(steps=2, matching_steps=1, **change):
    training = {"batch_size": 2, "checkpoint_every": 2, "warmup_steps": 1, "gradient_clip": 1e4}
    return GanSettings(
        widths=(8, 8),
        blocks=(1, 1),
        critic_widths=(8, 8),
        encoder_widths=(8, 8),
        features=16,
        matching_steps=matching_steps,
        volumes=True,
        sections=4,
        training=TrainingSettings(steps=steps, **training),
        **change,
    )


@pytest.fixture(autouse=True)
def quick_fit(monkeypatch):
    monkeypatch.setattr("generators.gan_training.FIT_STEPS", 50)


def test_sections_are_evenly_spaced_and_kept_by_volume():
    x = torch.rand(2, 1, 8, 8, 12)
    found = chosen_sections(x, torch.tensor([5, 0, 11]), 4)
    assert [f.shape for f in found] == [(8, 1, 8, 12), (8, 1, 8, 12), (8, 1, 8, 8)]
    every = all_sections(x, 0)
    assert torch.equal(found[0], every[[5, 7, 1, 3, 13, 15, 9, 11]])
    assert torch.equal(found[2][:4], x[0].movedim(3, 0)[[11, 2, 5, 8]])


def test_real_sections_are_those_of_the_volumes_process_point():
    data = planes(12)
    other = planes(12, fraction=0.9, points=2)  # no section at 2/3: the nearest point is 1/2
    kinds = [data, other, other]
    objective = initial_section_objective(kinds, settings(isotropic=False, flips=False))
    draw = SectionDraw(kinds, settings(isotropic=False, flips=False), objective.net)
    batch = torch.tensor([2, 4])
    units, _, _, _, starts, *real = draw(batch, torch.Generator().manual_seed(0))
    assert units[:, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert (starts < 16).all()
    assert [len(r) for r in real] == [8, 8, 8]

    def total(rows):
        return sorted((rows[:, 1] > 0).flatten(1).sum(1).tolist())

    ink = data.phases.flatten(1).sum(1)
    assert set(total(real[0][:4])) <= set(ink[2::3].tolist())
    inks = other.phases.flatten(1).sum(1)
    assert set(total(real[1][:4])) <= set(inks[1::2].tolist())


def test_expected_shares_follow_the_process_and_not_single_sections():
    draw = np.random.default_rng(0)
    made, wanted = [], np.repeat(np.linspace(0.05, 0.95, 60), 3)
    for a in wanted:
        phases = np.zeros((16, 16), np.uint8)
        phases[: round(16 * np.clip(0.2 + 0.5 * a + 0.08 * draw.standard_normal(), 0, 1))] = 1
        made.append(
            Microstructure(
                phases=phases,
                voxel_size_um=0.5,
                periodic=(True, True),
                process={"a": float(a)},
                phase_names=("x", "y"),
            )
        )
    data = MicrostructureDataset.from_structures(made, SPACE)
    found = expected_shares(data)
    assert torch.allclose(found.sum(1), torch.ones(len(found)))
    truth = torch.from_numpy(0.2 + 0.5 * wanted).float()
    single = (data.phases.float().mean((1, 2)) - truth).square().mean().sqrt()
    assert (found[:, 1] - truth).square().mean().sqrt() < 0.25 * single


def test_volumes_of_one_kind_of_section_resume_save_and_load(tmp_path):
    data = planes(fraction=0.3)
    whole = train_generator(data, settings(3), tmp_path / "whole")

    def stop(step, total, numbers):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gan_on_sections([data], settings(3), tmp_path / "parts", progress=stop)
    parts = train_gan_on_sections([data], settings(3), tmp_path / "parts")
    a, b = whole.net.state_dict(), parts.net.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    model = load_generator(tmp_path / "whole")
    assert isinstance(model, ConditionalGAN)
    assert model.periodic == (True, True, True)
    volumes = model.sample({"a": 0.4}, n=4, shape=(8, 16, 12), seed=0)
    assert volumes[0].shape == (8, 16, 12)
    # Fractions of volumes do not scatter as those of small sections do.
    assert np.std([v.volume_fractions[1] for v in volumes]) < 1e-3


def test_three_kinds_of_sections_give_three_judges():
    flat = planes()
    objective = initial_section_objective([flat, flat, flat], settings())
    draw = SectionDraw([flat, flat, flat], settings(), objective.net)
    objective.steps.fill_(5)
    loss, shown = objective(*draw(torch.tensor([0, 1]), torch.Generator().manual_seed(0)))
    loss.backward()
    assert {f"critic_{k}" for k in range(3)} <= set(shown)
    assert objective.net.last.convolution.weight.grad.abs().sum() > 0


def columns(n=16):
    """Volumes that do not change along axis 2."""
    draw = np.random.default_rng(0)
    waves = np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij")
    low = np.exp(-150 * (waves[0] ** 2 + waves[1] ** 2))
    made = []
    for k in range(n):
        field = np.fft.ifft2(np.fft.fft2(draw.standard_normal((16, 16))) * low).real
        phases = np.repeat((field > np.median(field))[..., None], 16, 2)
        made.append(
            Microstructure(
                phases=phases.astype(np.uint8),
                voxel_size_um=0.5,
                periodic=(True, True, True),
                process={"a": k / n},
                phase_names=("x", "y"),
            )
        )
    return MicrostructureDataset.from_structures(made, SPACE)


def test_sections_along_columns_and_across_them_make_volumes_of_columns(tmp_path):
    kinds = [section_dataset(columns(), seed=0, normals=[axis]) for axis in range(3)]
    training = TrainingSettings(
        steps=60,
        batch_size=2,
        learning_rate=5e-3,
        warmup_steps=5,
        ema_steps=10,
        gradient_clip=1e4,
    )
    chosen = settings(matching_steps=60).model_copy(update={"training": training})
    model = train_gan_on_sections(kinds, chosen, tmp_path / "columns")
    volumes = model.sample({"a": 0.3}, n=4, shape=(16, 16, 16), seed=0)
    phases = np.stack([v.phases for v in volumes])
    faces = [np.mean(phases != np.roll(phases, 1, axis)) for axis in (1, 2, 3)]
    assert faces[2] < 0.7 * min(faces[:2])


def test_what_does_not_fit_is_named(tmp_path):
    data = planes()
    with pytest.raises(DataError, match="one kind of plane section, or three"):
        train_gan_on_sections([data, data], settings(), tmp_path / "m")
    with pytest.raises(DataError, match="for a GAN only"):
        train_generator(data, VaeSettings(), tmp_path / "m", sections=[data, data])
    renamed = MicrostructureDataset.from_structures(
        [
            Microstructure(
                phases=m.phases,
                voxel_size_um=0.25,
                periodic=m.periodic,
                process=m.process,
                phase_names=m.phase_names,
            )
            for m in data
        ],
        SPACE,
    )
    with pytest.raises(DataError, match="one voxel size"):
        train_gan_on_sections([data, renamed, data], settings(), tmp_path / "m")
