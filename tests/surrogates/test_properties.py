"""The property surrogate: inside its bounds untrained, calibrated, saved, and better trained."""

import pytest
import torch

from microstructures import CheckpointError, DataError
from networks import TrainingSettings
from physics.mechanics import IsotropicElastic, effective_stiffness, voigt_reuss_bounds
from surrogates import FieldSurrogate, PropertySurrogate
from surrogates.descriptor_model import DescriptorModel
from surrogates.labels import LabelledCells, material_draws
from surrogates.pooled_net import PooledNet
from surrogates.property_training import (
    PropertySettings,
    calibrated,
    relative_error,
    train_property_surrogate,
)
from surrogates.quantities import MaterialRange, Stiffness, local_moduli, scaled


def labelled(phases, *, seed=0) -> LabelledCells:
    quantity = Stiffness()
    u = material_draws(len(phases), 2, seed=seed)
    moduli = quantity.drawn(u, MaterialRange((3.0, 10.0), (0.2, 0.4)), 2)
    _, unit = scaled(local_moduli(phases, moduli))
    moduli = moduli / unit.view(-1, 1, 1)
    values = []
    for cell, (bulk, shear) in zip(phases, moduli.double(), strict=True):
        nu = (bulk - shear) / (2 * bulk)
        materials = [
            IsotropicElastic(youngs_modulus_gpa=float(2 * g * (1 + v)), poisson_ratio=float(v))
            for g, v in zip(shear, nu, strict=True)
        ]
        values.append(effective_stiffness(cell[None], materials).value)
    return LabelledCells(phases, moduli, torch.cat(values).float(), quantity)


def net(members=2) -> PooledNet:
    torch.manual_seed(0)
    return PooledNet(
        quantity="stiffness", dim=2, widths=(8, 8), features=8, steps=1, members=members
    )


def settings(**changes) -> PropertySettings:
    training = TrainingSettings(
        steps=30, batch_size=8, learning_rate=5e-3, warmup_steps=5, ema_steps=10
    )
    tiny = {"widths": (8, 8), "features": 8, "members": 2, "random_fields": 60, "half": False}
    return PropertySettings(training=training, **{**tiny, **changes})


def test_wild_weights_stay_between_reuss_and_voigt(blobs, materials):
    wild = net()
    with torch.no_grad():
        for parameter in wild.parameters():
            parameter.add_(torch.randn(parameter.shape))
    phases = blobs(8, seed=50)
    surrogate = PropertySurrogate(wild, labelled(phases).familiarity(), torch.ones(3, 3))
    value = surrogate.predict(phases, materials).value
    fractions = torch.stack([1 - phases.double().mean((1, 2)), phases.double().mean((1, 2))], 1)
    bounds = voigt_reuss_bounds(fractions, materials, dim=2)
    assert torch.linalg.eigvalsh(value - bounds.lower).min() > -1e-4
    assert torch.linalg.eigvalsh(bounds.upper - value).min() > -1e-4


def test_units_and_even_shifts_do_not_matter(blobs, materials):
    phases = blobs(3, seed=51)
    surrogate = PropertySurrogate(net(), labelled(phases).familiarity(), torch.ones(3, 3))
    found = surrogate.predict(phases, materials)
    in_mpa = [
        m.model_copy(update={"youngs_modulus_gpa": 1000 * m.youngs_modulus_gpa}) for m in materials
    ]
    assert torch.allclose(surrogate.predict(phases, in_mpa).value, 1000 * found.value, rtol=1e-4)
    moved = surrogate.predict(phases.roll((4, 8), (1, 2)), materials)
    assert torch.allclose(moved.value, found.value, rtol=1e-4)


def test_training_beats_the_untrained_net_and_survives_saving(dataset, blobs, tmp_path):
    trained = train_property_surrogate(dataset, settings(), tmp_path / "model")
    cells = labelled(blobs(24, seed=52), seed=3)

    def error(surrogate_net):
        found = surrogate_net(cells.fields(torch.arange(24), cells.phases))[0]
        return float(relative_error(found.interval.at(found.mean), cells.effective).mean())

    with torch.no_grad():
        assert error(trained.net) < 0.9 * error(net())
    loaded = PropertySurrogate.from_pretrained(tmp_path / "model")
    materials = [IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, 8.0)]
    first, second = (m.predict(cells.phases, materials) for m in (trained, loaded))
    assert torch.equal(first.upper, second.upper)
    assert first.level == "statistical"
    with pytest.raises(CheckpointError, match="FieldSurrogate"):
        FieldSurrogate.from_pretrained(tmp_path / "model")


def test_the_margin_covers_the_share_of_held_out_cells(blobs):
    cells = labelled(blobs(40, seed=53), seed=4)
    untrained = net()
    margins = calibrated(untrained, cells, confidence=0.8)
    surrogate = PropertySurrogate(untrained, cells.familiarity(), margins)
    value, spread = surrogate.estimate(cells.fields(torch.arange(40), cells.phases))
    inside = ((value - cells.effective).abs() <= margins * spread * (1 + 1e-9)).sum(0)
    assert (inside == 33).all()  # ceil(0.8 * 41) of 40: exact for a new cell
    with pytest.raises(DataError, match="at least 99 held-out cells"):
        calibrated(untrained, cells, confidence=0.99)


def test_the_descriptor_model_learns_and_stays_within_bounds(blobs):
    cells, fresh = labelled(blobs(80, seed=54), seed=5), labelled(blobs(16, seed=55), seed=6)
    found = DescriptorModel.fit(cells, components=4).predict(fresh)
    guess = cells.effective.mean(0).expand(16, 3, 3)
    assert (
        relative_error(found, fresh.effective).mean()
        < 0.5 * relative_error(guess, fresh.effective).mean()
    )
    assert torch.linalg.eigvalsh(found).min() > 0
    with pytest.raises(DataError, match="more than 12"):
        DescriptorModel.fit(labelled(blobs(12, seed=56)))


def test_what_does_not_fit_is_refused(blobs, materials):
    surrogate = PropertySurrogate(
        net(), labelled(blobs(4, seed=57)).familiarity(), torch.ones(3, 3)
    )
    with pytest.raises(DataError, match="multiples of 4"):
        surrogate.predict(torch.zeros(1, 18, 18, dtype=torch.uint8), materials)
    with pytest.raises(DataError, match="IsotropicElastic per phase"):
        surrogate.predict(blobs(1, seed=58), [1.0, 10.0])
    with pytest.raises(DataError, match="label"):
        surrogate.predict(blobs(1, seed=58) + 1, materials)
    with pytest.raises(ValueError, match="above highest_contrast"):
        settings(lowest_contrast=40.0)
