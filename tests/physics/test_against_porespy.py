"""Another code on the same image: porespy's non-periodic two-point correlation."""

import warnings

import numpy as np
import torch

from physics import radial_mean, two_point_correlation
from physics.processes import SpinodalDecomposition


def test_two_point_correlation_agrees_with_porespy():
    process = {"composition": 0.45, "temperature_k": 700.0, "ageing_time_h": 2.0}
    cell = SpinodalDecomposition().simulate(process, shape=(96, 96), seed=0)[0]
    indicator = cell.phases == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside porespy and what it imports
        from porespy.metrics import two_point_correlation as peer

        theirs = peer(indicator)
    ours = radial_mean(
        two_point_correlation(torch.from_numpy(indicator)[None].double(), periodic=False),
        max_lag=24,
    )[0].numpy()
    # porespy divides by the fraction and bins by distance: its bins are read at our whole radii,
    # coarse where S2 is steep.
    lags = np.arange(2, 25)
    expected = np.interp(lags, np.asarray(theirs.distance), np.asarray(theirs.probability))
    difference = np.abs(expected * indicator.mean() - ours[2:])
    assert difference.max() < 0.015
    assert difference[8:].mean() < 0.002
