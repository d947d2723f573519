"""Pools of cells that somebody wants to learn from, and groups of test cells to judge by.

What is in the pools was written down before anything was picked from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from studies.run_folder import RunFolder
from studies.settings import ProcessName, SurrogateBenchSettings
from studies.surrogate_cells import family_cells, solved_cells
from surrogates.labels import LabelledCells
from surrogates.property_training import PropertySettings

LEAST_FRACTION = 0.02
TOLERANCE = 1e-3  # residual of the labels, whose energies are off by the square


@dataclass(frozen=True)
class Group:
    """Cells of one simulator at one range of contrasts.

    Args:
        name: What they are.
        process: The simulator.
        contrast: Young's moduli, stiff over soft, drawn log-uniformly, either phase stiff.
        first: Index of the first cell in the simulator's campaign.
        simulated: How many are simulated to have enough of two phases.
    """

    name: str
    process: ProcessName
    contrast: tuple[float, float]
    first: int
    simulated: int


@dataclass(frozen=True)
class PoolExtent:
    """How many cells there are: of the common group, of each rare one, and for the test.

    `rare_in_lopsided` of each rare group lie in the lopsided pool, `rare` in the even one.
    """

    common: int
    rare: int
    rare_in_lopsided: int
    tested: int
    side: int

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "PoolExtent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(60, 24, 8, 12, 16)
        return cls(1700, 300, 100, 150, 64)

    @property
    def lopsided(self) -> int:
        """Cells of the lopsided pool."""
        return self.common + (len(self.groups()) - 1) * self.rare_in_lopsided

    def groups(self) -> tuple[Group, ...]:
        """Return the common group, then the rare ones."""
        common, rare = self.common + self.tested, self.rare + self.tested
        high = (30.0, 100.0)
        return (
            Group("spinodal, 3 to 10", "spinodal", (3.0, 10.0), 0, common + common // 20),
            Group("spinodal, 30 to 100", "spinodal", high, 4000, rare + rare // 20),
            Group("nucleation, 30 to 100", "nucleation-growth", high, 0, 6 * rare),
            Group("random field, 30 to 100", "random-field", high, 0, 2 * rare),
        )


@dataclass(frozen=True)
class PickingCells:
    """All labelled cells, which of them form each pool, and which are the test's, by group."""

    cells: LabelledCells
    pools: Mapping[str, Tensor]
    tests: Mapping[str, Tensor]
    shares: Mapping[str, Mapping[str, float]]

    @property
    def starts(self) -> list[int]:
        """The first row of each group, whose test cells come before those of the pools."""
        return [int(rows[0]) for rows in self.tests.values()]

    @property
    def tested(self) -> Tensor:
        """The rows of all test cells, group after group."""
        return torch.cat(list(self.tests.values()))


def picking_cells(settings: SurrogateBenchSettings, run: RunFolder) -> PickingCells:
    """Return the cells of both pools and of the test, solved once a run."""
    extent = PoolExtent.of(settings)
    parts, tests, lopsided, even = [], {}, [], []
    start = 0
    for k, group in enumerate(extent.groups()):
        cells = _solved(group, extent.tested + (extent.rare if k else extent.common), extent, run)
        rows = torch.arange(start, start + len(cells))
        tests[group.name], pooled = rows[: extent.tested], rows[extent.tested :]
        even.append(pooled[: extent.rare])
        lopsided.append(pooled[: extent.rare_in_lopsided if k else extent.common])
        parts.append(cells)
        start += len(cells)
    pools = {"lopsided": torch.cat(lopsided), "even": torch.cat(even)}
    shares = {
        name: {g: len(r) / sum(map(len, rows)) for g, r in zip(tests, rows, strict=True)}
        for name, rows in (("lopsided", lopsided), ("even", even))
    }
    return PickingCells(LabelledCells.joined(parts), pools, tests, shares)


def _solved(group: Group, count: int, extent: PoolExtent, run: RunFolder) -> LabelledCells:
    cells = family_cells(
        run,
        group.process,
        first=group.first,
        count=group.simulated,
        side=extent.side,
        least_fraction=LEAST_FRACTION,
    ).subset(range(count))
    low, high = group.contrast
    chosen = PropertySettings.model_validate(
        {
            "lowest_contrast": low,
            "highest_contrast": high,
            "random_fields": 0,
            "tolerance": TOLERANCE,
        }
    )
    return solved_cells(run, f"active-{group.process}-{low:g}", cells, chosen)
