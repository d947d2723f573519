"""Chapter of the surrogates' benchmark: do certified intervals hold the converged value?"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microstructures.seeds import generator_for
from physics import IsotropicElastic, effective_stiffness
from studies.bench_chapter import Chapter
from studies.bench_table import Cell, Row, Table, plain_row
from studies.race_brackets import FAMILIES
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from surrogates import FieldSurrogate

NETS = ("elastic-2d-fno", "elastic-2d-unet")
SIDES, BATCH = (32, *[16] * 9), 20  # in turn, each for one round of families, nets, iterations
RUN_BATCHES = 25  # batches of one stage: what an interrupted run loses at most
HIGHEST_CONTRAST = 1000.0
ITERATIONS = (0, 0, 1, 3)
CONVERGED = 1e-6
SLACK = 1e-6
"""Relative slack of the converged value, which is right to about 1e-12."""


def certificate_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return how many intervals hold the solver's converged matrix, in the Loewner order."""
    count = 2 if settings.quick else 500
    key = weights_key(NETS)
    nets = {name: FieldSurrogate.from_pretrained(name) for name in NETS}
    parts = [
        run.stage(
            f"certificate.{key}.{start:04d}",
            partial(_measured, range(start, min(start + RUN_BATCHES, count)), nets, settings.seed),
        ).arrays
        for start in range(0, count, RUN_BATCHES)
    ]
    found = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    cells = len(found["margin"])
    return Chapter(
        name="certificate",
        title=f"Certified intervals of {cells} cells",
        about=(
            f"{cells} cells of 32 x 32 or (most) 16 x 16 voxels, in batches of {BATCH}: "
            f"{', '.join(FAMILIES)}; Young's moduli 1 : 1 to 1 : {HIGHEST_CONTRAST:g} either way "
            "(log-uniform), Poisson's ratios 0 to 0.45: most of them unlike anything that the nets "
            "have learnt. Both shipped nets, alone and after 1 or 3 iterations of the solver. The "
            "interval holds the solver's own value (residual 1e-6, float64) if converged minus "
            "lower and upper minus converged have no negative eigenvalue, within "
            f"{SLACK:g} of the value; the margin is the least of these eigenvalues over the value."
        ),
        tables={"": _table(found)},
        facts={
            "cells": cells,
            "violations": int((found["margin"] < -SLACK).sum()),
            "least_margin": float(found["margin"].min()),
        },
    )


def _measured(batches: Sequence[int], nets: Mapping[str, FieldSurrogate], seed: int) -> Stage:
    parts = [_batch(k, nets, seed) for k in batches]
    return Stage({}, {key: np.concatenate([p[key] for p in parts]) for key in parts[0]})


def _batch(k: int, nets: Mapping[str, FieldSurrogate], seed: int) -> dict[str, np.ndarray]:
    """Return margin, width and distance of one batch of cells, which share their materials."""
    generator = generator_for(seed, "certificate", k)
    families = list(FAMILIES)
    rest, family = divmod(k, len(families))
    rest, net = divmod(rest, len(NETS))
    rest, place = divmod(rest, len(ITERATIONS))
    iterations, side = ITERATIONS[place], SIDES[rest % len(SIDES)]
    phases = torch.stack(
        [FAMILIES[families[family]]((side, side), generator).long() for _ in range(BATCH)]
    )
    u = (2 * torch.rand(3, generator=generator) - 1).tolist()
    materials = [
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.225 * (1 + nu))
        for e, nu in ((1.0, u[0]), (HIGHEST_CONTRAST ** u[2], u[1]))
    ]
    found = nets[NETS[net]].predict(phases, materials, iterations=iterations)
    assert found.lower is not None
    assert found.upper is not None
    truth = effective_stiffness(phases, materials, tolerance=CONVERGED).value
    width = (found.upper - found.lower).diagonal(dim1=1, dim2=2) / found.upper.diagonal(
        dim1=1, dim2=2
    )
    return {
        "margin": _margins(found.lower, truth, found.upper).numpy(),
        "width": width.amax(1).numpy(),
        "distance": found.distance.double().numpy(),
        "family": np.full(BATCH, family),
        "net": np.full(BATCH, net),
        "iterations": np.full(BATCH, iterations),
    }


def _margins(
    lower: Float[Tensor, "batch n n"],
    truth: Float[Tensor, "batch n n"],
    upper: Float[Tensor, "batch n n"],
) -> Float[Tensor, " batch"]:
    """Return the least eigenvalue of truth - lower and upper - truth in units of the truth."""
    values, vectors = torch.linalg.eigh(truth)
    root = vectors / values.sqrt().unsqueeze(-2)
    gaps = [torch.linalg.eigvalsh(root.mT @ g @ root) for g in (truth - lower, upper - truth)]
    return torch.cat(gaps, 1).amin(1)


def _table(found: Mapping[str, np.ndarray]) -> Table:
    columns, groups = ["all"], [np.ones(len(found["margin"]), bool)]
    for net, name in enumerate(NETS):
        for iterations in sorted(set(ITERATIONS)):
            columns.append(f"{name}, {iterations} iterations")
            groups.append((found["net"] == net) & (found["iterations"] == iterations))
    kept = [(c, g) for c, g in zip(columns, groups, strict=True) if g.any()]
    held = []
    for _, group in kept:
        broken = int((found["margin"][group] < -SLACK).sum())
        held.append(Cell(f"{int(group.sum()) - broken} of {int(group.sum())}", broken == 0))
    rows = [
        Row("intervals that hold the converged matrix", tuple(held), "all of them"),
        plain_row("least margin", [f"{found['margin'][g].min():.1e}" for _, g in kept]),
        plain_row(
            "median width of the widest entry",
            [f"{100 * np.median(found['width'][g]):.2g} %" for _, g in kept],
        ),
        plain_row(
            "share beyond distance 1",
            [f"{100 * (found['distance'][g] > 1).mean():.3g} %" for _, g in kept],
        ),
    ]
    return Table(tuple(c for c, _ in kept), tuple(rows))
