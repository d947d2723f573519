"""What simulators share: checked points, one seed per cell, space-filling points."""

import numpy as np
import pytest
import torch

from microstructures import DataError, Parameter, ProcessSpace
from physics.processes.campaign import Campaign, process_points

SPACE = ProcessSpace([Parameter("size_um", "um", 1.0, 9.0), Parameter("time_h", "h", 1, 4, "log")])
POINTS = [{"size_um": 2.0, "time_h": 2.0}, {"size_um": 3.0, "time_h": 1.0}]


def plan(points=POINTS, **settings):
    return Campaign.plan(points, space=SPACE, **{"shape": (4, 5), "seed": 3, **settings})


def test_cells_of_a_point_stand_in_a_row():
    campaign = plan(n=3)
    assert [p["size_um"] for p in campaign.points] == [2.0] * 3 + [3.0] * 3
    assert plan(POINTS[0]).points == (POINTS[0],)


def test_a_campaign_may_be_cut_into_any_pieces():
    whole = plan(n=3).white_noise()
    pieces = [plan(POINTS[0], n=3), plan(POINTS[1], n=3, first=3)]
    pieces = torch.cat([piece.white_noise() for piece in pieces])
    assert torch.equal(whole, pieces)
    assert len(np.unique(whole)) == whole.numel()
    assert not torch.equal(whole, plan(n=3, seed=4).white_noise())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"points": []}, "at least one process point"),
        ({"points": {"size_um": 2.0}}, "expected values for size_um, time_h"),
        ({"points": {"size_um": 20.0, "time_h": 1.0}}, "size_um between 1 and 9"),
        ({"shape": (4,)}, "2-D or 3-D shape"),
        ({"shape": (4, 3)}, "at least 4 voxels"),
        ({"shape": (4, 3), "smallest": 5}, "at least 5 voxels"),
        ({"n": 0}, "n >= 1"),
    ],
)
def test_bad_campaigns_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        plan(**settings)


def test_process_points_fill_the_space_and_grow_without_moving():
    points = process_points(SPACE, 64, seed=1)
    assert process_points(SPACE, 9, seed=1) == points[:9]
    unit = np.array([SPACE.to_unit(p) for p in points])
    # A scrambled Sobol net in base 2: eight of 64 points in each eighth along every axis.
    for column in unit.T:
        assert (np.bincount((column * 8).astype(int), minlength=8) == 8).all()
