"""Both operators inside the field surrogate, and a truncated solver behind them."""

import pytest
import torch

from microstructures import DataError
from physics.mechanics import effective_stiffness, solve_elasticity
from physics.mechanics.discretisation import staggered_problem
from surrogates import FieldSurrogate
from surrogates.convolutional_operator import ConvolutionalOperator
from surrogates.displacement_net import DisplacementNet
from surrogates.familiarity import Familiarity, describe
from surrogates.iterated import iterated
from surrogates.operators import ConvolutionalSettings, FourierSettings, operator_settings
from surrogates.reference import ReferencedCells


def unet_surrogate(cells) -> FieldSurrogate:
    torch.manual_seed(0)
    operator = ConvolutionalSettings(widths=(8, 8), blocks=1, features=8)
    net = DisplacementNet(dim=cells.ndim - 1, steps=1, operator=operator)
    shear = torch.where(cells == 1, 2.0, 0.5)
    referenced, _ = ReferencedCells.of_moduli(shear, shear)
    return FieldSurrogate(net, Familiarity.fit(describe(referenced.moduli), cells.shape[1:]))


def test_a_u_net_surrogate_saves_loads_and_brackets(blobs, materials, tmp_path):
    phases = blobs(4, seed=70)
    surrogate = unet_surrogate(phases)
    surrogate.save_pretrained(tmp_path / "model")
    loaded = FieldSurrogate.from_pretrained(tmp_path / "model")
    assert isinstance(loaded.net.operator, ConvolutionalOperator)
    first, second = (m.predict(phases, materials) for m in (surrogate, loaded))
    assert torch.equal(first.strain, second.strain)
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value
    assert (first.lower[:, 0, 0] <= exact[:, 0, 0]).all()
    assert (exact[:, 0, 0] <= first.upper[:, 0, 0] * (1 + 1e-9)).all()
    with pytest.raises(DataError, match="multiples of 4"):
        surrogate.check_shape((18, 18))


def test_iterations_from_the_net_narrow_its_bracket(blobs, materials):
    phases = blobs(4, seed=71)
    surrogate = unet_surrogate(phases)
    widths = []
    for iterations in (0, 1, 3, 8):
        found = surrogate.predict(phases, materials, iterations=iterations)
        widths.append((found.upper - found.lower)[:, 0, 0].mean())
    assert widths[0] > widths[1] > widths[2] > widths[3]


def test_many_iterations_from_zero_are_the_solver(blobs, materials):
    phases = blobs(2, seed=72)
    exact = solve_elasticity(phases, materials, tolerance=1e-6).displacement
    found = iterated(staggered_problem(phases, materials), None, 30)
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


def test_a_saved_config_tells_its_operator():
    for settings in (FourierSettings(modes=8), ConvolutionalSettings(widths=(4, 8))):
        assert operator_settings(settings.model_dump(mode="json")) == settings
