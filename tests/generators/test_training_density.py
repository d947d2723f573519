"""The density of training data over the process window, and points beyond it."""

import math

import pytest
import torch

from generators.training_density import TrainingDensity, units_beyond
from microstructures import DataError, Parameter, ProcessSpace
from physics.processes import SpinodalDecomposition, process_points

SPACE = ProcessSpace(
    [Parameter("a", "-", 0.0, 2.0), Parameter("kind", "-", scale="choice", choices=("x", "y"))]
)


def test_even_data_is_even_up_to_the_corners_and_fades_outside():
    space = SpinodalDecomposition().space
    points = process_points(space, 512, seed=1)
    density = TrainingDensity.fit(torch.tensor([space.to_unit(p) for p in points]), space)
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.5]])
    anywhere = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    assert density(anywhere).min() > 0.55
    assert density(corners).min() > 0.5
    outside = [float(density(torch.tensor([[1 + d, 0.5, 0.5]]))[0]) for d in (0.1, 0.3, 0.5)]
    assert outside[0] > outside[1] > outside[2]
    assert outside[2] < 0.05


def test_gaps_between_few_settings_and_unseen_choices_are_empty():
    settings = torch.tensor([[0.1, 0.25], [0.5, 0.25], [0.9, 0.25]]).repeat(20, 1)
    density = TrainingDensity.fit(settings, SPACE)
    assert density(torch.tensor([[0.5, 0.25]]))[0] > 0.8
    assert density(torch.tensor([[0.5, 0.75]]))[0] == 0
    unknown = density(torch.tensor([[math.nan, 0.25], [0.5, math.nan]]))
    assert unknown.min() > 0.8


def test_the_marginal_sums_up_the_other_parameters():
    space = ProcessSpace([Parameter(name, "-", 0.0, 1.0) for name in "ab"])
    a, b = torch.tensor([0.1, 0.2, 0.9]), torch.linspace(0, 1, 20)
    both = TrainingDensity.fit(torch.cartesian_prod(a, b), space)
    at = torch.linspace(0, 1, 7)
    alone = TrainingDensity(a[:, None].double(), both.bandwidth[:1], both.marginal([0]).typical)
    assert torch.allclose(both.marginal([0])(at[:, None]), alone(at[:, None]))
    assert both.marginal([0])(torch.tensor([[0.5]])) < 0.7
    assert both.marginal([1])(at[:, None]).min() > 0.9


def test_density_survives_plain_data():
    units = torch.rand(50, 2)
    units[3, 0] = math.nan
    density = TrainingDensity.fit(units, SPACE)
    again = TrainingDensity.from_json(density.to_json())
    points = torch.rand(9, 2)
    assert torch.equal(density(points), again(points))


def test_coordinates_beyond_the_window():
    units, beyond = units_beyond(SPACE, [{"a": 2.5, "kind": "x"}, {"a": -0.5}, {"a": 1.0}, {}])
    assert units[:3, 0].tolist() == [1.25, -0.25, 0.5]
    assert math.isnan(units[3, 0])
    assert units[0, 1] == 0.25
    assert beyond == [True, True, False, False]
    log = ProcessSpace([Parameter("t", "h", 1.0, 100.0, "log")])
    assert units_beyond(log, [{"t": 1000.0}])[0][0, 0] == pytest.approx(1.5)
    for space, process in ((SPACE, {"a": 3.1}), (log, {"t": 0.0}), (SPACE, {"b": 1.0})):
        with pytest.raises(DataError):
            units_beyond(space, [process])
