"""The shipped gate on fresh simulations: what it passes and what it refuses (README's figures)."""

import numpy as np
import torch

from generators.generator import SHIPPED
from physics import CorrelationGate
from physics.processes import SpinodalDecomposition, process_points

POINTS, CELLS, STEP = 30, 12, 0.025


def test_fresh_cells_pass_and_wrong_ones_do_not():
    gate, alloy = CorrelationGate.load(SHIPPED / "spinodal-2d-gate"), SpinodalDecomposition()
    composition = alloy.space.parameters[0]
    passed, noise, wrong, n_wrong = 0, 0, 0, 0
    for index, process in enumerate(process_points(alloy.space, POINTS, seed=77)):
        cells = alloy.simulate(process, shape=(64, 64), seed=500 + index, n=CELLS)
        phases = torch.from_numpy(np.stack([cell.phases for cell in cells]))
        passed += int((gate.score(phases, process) <= 1).sum())
        fractions = phases.double().mean((1, 2))[:, None, None]
        generator = torch.Generator().manual_seed(index)
        white = (torch.rand(phases.shape, generator=generator) < fractions).to(phases.dtype)
        noise += int((gate.score(white, process) <= 1).sum())
        for shifted in (process["composition"] - STEP, process["composition"] + STEP):
            if composition.low <= shifted <= composition.high:
                scores = gate.score(phases, {**process, "composition": shifted})
                wrong, n_wrong = wrong + int((scores <= 1).sum()), n_wrong + CELLS
    assert n_wrong == 660
    assert 0.92 <= passed / (POINTS * CELLS) <= 0.99
    assert noise == 0
    assert wrong == 0
