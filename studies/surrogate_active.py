"""A chapter of the surrogates' benchmark: how many labels active learning saves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microstructures.seeds import derive_seed
from studies.active_tables import curves_figure, error_table, group_table, ratio_table
from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.learning_curves import OURS, RANDOM, RULES, Learn, learning_curve
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.stopwatch import one_thread
from studies.surrogate_accuracy import matrices
from studies.surrogate_cells import models_folder
from studies.surrogate_pool import TOLERANCE, PickingCells, PoolExtent, picking_cells
from surrogates import PropertySurrogate
from surrogates.active_learning import FirstStepsWidth, PredictedSpread, cell_features
from surrogates.active_training import solved_rows, trained_net
from surrogates.descriptor_process import CellDescriptors, DescriptorProcess
from surrogates.labels import LabelledCells, coarsened
from surrogates.property_training import PropertySettings, relative_error

PROCESS, NET = "Gaussian process", "pooled net"


@dataclass(frozen=True)
class Extent:
    """Labels after each round and seeds, of the process on descriptors and of the net."""

    sizes: tuple[int, ...]
    seeds: int
    net_sizes: tuple[int, ...]
    net_seeds: int
    net_steps: int

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls((16, 24, 32), 1, (12, 20), 1, 3)
        if settings.tier == "small":
            return cls(tuple(range(32, 385, 32)), 5, (48, 96, 192), 3, 200)
        return cls(tuple(range(32, 385, 32)), 10, (48, 96, 192, 384), 5, 600)


def active_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return the labels that each rule needs to reach the error of random picking."""
    extent, pools = Extent.of(settings), PoolExtent.of(settings)
    facts = {name: _process_curves(name, settings, run).facts for name in ("lopsided", "even")}
    net = _net_curves("lopsided", settings, run)
    curves = {
        **{f"{PROCESS}, {name} pool": found for name, found in facts.items()},
        f"{NET}, lopsided pool": net,
    }
    tables = {
        "Cells of the pools and of the test": _pool_table(pools),
        "Labels for the error of random picking, as a share of its own": ratio_table(curves),
    }
    for name, found in curves.items():
        tables[f"{name}: error by labels (%), all groups alike: mean (range over seeds)"] = (
            error_table(found)
        )
        tables[f"{name}: what was labelled in the end (%), and the error in each group (%)"] = (
            group_table(found)
        )
    return Chapter(
        name="active",
        title="Active learning: fewer labels for the same error",
        about=_about(extent, pools),
        tables=tables,
        figures=lambda: {
            "Error, all groups alike, against labels: mean and range over seeds": curves_figure(
                curves
            )
        },
        facts=curves,
    )


def _about(extent: Extent, pools: PoolExtent) -> str:
    rare = 100 * pools.rare_in_lopsided / pools.lopsided
    return (
        f"Cells of {pools.side} x {pools.side} voxels, Young's moduli at the contrast of the "
        "group either way, Poisson's ratios 0.2 to 0.4. The pools were written down before "
        f"anything was picked: a lopsided one, {100 * pools.common / pools.lopsided:.0f} % easy "
        f"cells of one family at low contrast and {rare:.0f} % each of three others at high "
        "contrast, and an even one of the same four groups. The "
        f"test has {pools.tested} further cells of each group; 'like the pool' weighs the groups "
        "as the pool does, 'all alike' equally. Error: |C*^-1/2 (C - C*) C*^-1/2| / sqrt(3). "
        "Spread: the learner's relative standard deviation; width: of the certificate of two "
        "solver iterations, which no label changes; 'apart': drawn like the seeds of k-means++, "
        "by doubt x distance in (contrast, Poisson's ratios, fraction, two-point correlation). "
        "The first cells are the same for every rule of a seed. A rule has reached an error from "
        "where its mean curve stays below it (in brackets the range over seeds); random picking's "
        "own entry says how flat its curve is; where it lowered the error of the first cells by "
        f"less than a tenth, there is no error to reach. {PROCESS}: on descriptors, the place of C "
        "between Reuss and the bound of two solver steps, refitted after every "
        f"{extent.sizes[1] - extent.sizes[0]} labels; {extent.seeds} seeds. "
        f"{NET.capitalize()}: two members, {extent.net_steps} steps from scratch after "
        f"{', '.join(map(str, extent.net_sizes))} labels, {extent.net_seeds} seeds, on the same "
        "cells at half the resolution, solved again. In the even pool leaving the easy group "
        "out saves a quarter of the labels; what is saved beyond that is chosen within the groups."
    )


def _process_curves(name: str, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    extent = Extent.of(settings)

    def work() -> Stage:
        cells = picking_cells(settings, run)
        rows = torch.cat([cells.pools[name], cells.tested])
        count = len(cells.pools[name])
        with one_thread():
            described = CellDescriptors.of(
                cells.cells.rows(rows), components=8 if settings.quick else 12
            )
            pool, test = (
                described.rows(torch.arange(count)),
                described.rows(torch.arange(count, len(rows))),
            )
            effective = cells.cells.effective[rows]

            def learn(known: Tensor) -> tuple[list[float], Tensor]:
                process = DescriptorProcess.fit(pool.rows(known), effective[known])
                errors = relative_error(process.predict(test)[0], effective[count:])
                return _by_group(errors, cells), process.doubt(pool)

            seeds = range(settings.seed, settings.seed + extent.seeds)
            return _measured(cells, name, tuple(RULES), learn, extent.sizes, seeds)

    return run.stage(f"active-process-{name}", work)


def _net_curves(name: str, settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    """Return the facts of all seeds, each of which is a stage of its own."""
    seeds = range(settings.seed, settings.seed + Extent.of(settings).net_seeds)
    facts = [_net_stage(name, seed, settings, run).facts for seed in seeds]
    joined = dict(facts[0])
    for key in ("errors", "labelled"):
        joined[key] = {
            rule: [found for each in facts for found in each[key][rule]] for rule in facts[0][key]
        }
    return joined


def _net_stage(name: str, seed: int, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    extent = Extent.of(settings)
    chosen = PropertySettings.model_validate(
        {
            "widths": (8, 8) if settings.quick else (16, 32),
            "features": 8 if settings.quick else 32,
            "steps": 2,
            "members": 2,
            "training": {
                "steps": extent.net_steps,
                "learning_rate": 3e-3,
                "warmup_steps": min(20, extent.net_steps // 2),
                "ema_steps": 30,
                "checkpoint_every": extent.net_steps,
                "seed": seed,
            },
        }
    )

    def work() -> Stage:
        cells = picking_cells(settings, run)
        with one_thread():
            small = cells.cells if settings.quick else _halved(cells.cells, run)
            folder = models_folder(run) / f"active-net-{name}-{seed}"
            learn = partial(_net_learn, small, cells, name, chosen, folder)
            return _measured(cells, name, (RANDOM, OURS), learn, extent.net_sizes, [seed])

    return run.stage(f"active-net-{name}-{seed}", work)


def _net_learn(
    small: LabelledCells,
    cells: PickingCells,
    name: str,
    chosen: PropertySettings,
    folder: Path,
    known: Tensor,
) -> tuple[list[float], Tensor]:
    """Return the test errors by group of a net of these labels, and its spread over the pool."""
    labels = small.rows(cells.pools[name][known])
    # Every rule's first cells are the same: that net is trained once.
    place = folder / f"labels-{len(known)}-{derive_seed(*known.tolist()):016x}"
    net = trained_net(labels, chosen, place, identity={"rows": known.tolist()})
    surrogate = PropertySurrogate(net, labels.familiarity(), torch.ones(net.n, net.n))
    test = small.rows(cells.tested)
    errors = relative_error(matrices(surrogate, test)[0], test.effective)
    return _by_group(errors, cells), PredictedSpread(surrogate)(small.rows(cells.pools[name]))


def _measured(
    cells: PickingCells,
    name: str,
    rules: Sequence[str],
    learn: Learn,
    sizes: Sequence[int],
    seeds: Sequence[int],
) -> Stage:
    """Return errors `(seed, size, group)` and labels by group `(seed, group)` of every rule."""
    rows = cells.pools[name]
    pool = cells.cells.rows(rows)
    features, width = cell_features(pool), FirstStepsWidth()(pool)
    group = torch.bucketize(rows, torch.tensor(cells.starts), right=True) - 1
    errors: dict[str, list[Any]] = {rule: [] for rule in rules}
    labelled: dict[str, list[list[int]]] = {rule: [] for rule in rules}
    for seed in seeds:
        for rule in rules:
            found, known = learning_curve(
                RULES[rule],
                learn,
                sizes,
                features=features,
                width=width,
                seed=seed,
            )
            errors[rule].append(found)
            labelled[rule].append(group[known].bincount(minlength=len(cells.tests)).tolist())
    shares = cells.shares[name]
    return Stage(
        {
            "sizes": list(sizes),
            "groups": list(shares),
            "shares": list(shares.values()),
            "errors": errors,
            "labelled": labelled,
        }
    )


def _by_group(errors: Tensor, cells: PickingCells) -> list[float]:
    counts = [len(rows) for rows in cells.tests.values()]
    return [float(part.mean()) for part in errors.split(counts)]


def _halved(cells: LabelledCells, run: RunFolder) -> LabelledCells:
    """Return the cells at half the resolution, solved again once a run."""
    coarse = replace(cells, phases=coarsened(cells.phases, 2))

    def solved() -> Stage:
        found = solved_rows(coarse, torch.arange(len(coarse)), tolerance=TOLERANCE)
        return Stage({}, {"effective": found.effective.numpy()})

    effective = run.stage("active-halved", solved).arrays["effective"]
    return replace(coarse, effective=torch.from_numpy(effective))


def _pool_table(extent: PoolExtent) -> Table:
    groups = extent.groups()
    columns = ("lopsided pool", "even pool", "test")
    rows = []
    for k, group in enumerate(groups):
        counts = (extent.rare_in_lopsided if k else extent.common, extent.rare, extent.tested)
        rows.append(plain_row(f"{group.name}: cells", [str(count) for count in counts]))
    return Table(columns, tuple(rows))
