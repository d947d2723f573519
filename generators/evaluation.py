"""How good a generator is over its process space: fresh simulations against fresh samples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from generators.fidelity import compare
from microstructures import Microstructure, ProcessSpace
from microstructures.seeds import derive_seed
from physics.processes.campaign import process_points


@runtime_checkable
class Simulator(Protocol):
    """A process that can be simulated at will: the exact truth."""

    @property
    def space(self) -> ProcessSpace:
        """Its parameters."""
        ...

    def simulate(
        self, parameters: Mapping[str, Any], *, shape: Sequence[int], seed: int, n: int
    ) -> list[Microstructure]:
        """Simulate n cells of a process."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A generator of microstructures."""

    def sample(
        self, process: Mapping[str, Any], *, n: int, shape: Sequence[int], seed: int
    ) -> Sequence[Microstructure]:
        """Draw n structures of a process."""
        ...


@dataclass(frozen=True)
class GeneratorReport:
    """Fidelity over unseen process points, each error beside its real-against-real floor.

    Errors are medians over the points of `generators.fidelity.compare`; a ratio is the RMS error
    over the RMS floor. The fraction is of phase 1; bias and RMSE are of its mean per point, and
    its spread is the median ratio of standard deviations, generated over real.
    """

    points: int
    cells_per_point: int
    fraction_rmse: float
    fraction_bias: float
    fraction_spread: float
    s2_error: float
    s2_floor: float
    s2_ratio: float
    chi_ratio: float
    lineal_path_error: float
    lineal_path_ratio: float
    surface_error: float
    surface_ratio: float
    euler_error: float
    euler_ratio: float


def evaluate_generator(
    model: Sampler,
    simulator: Simulator,
    *,
    shape: Sequence[int],
    points: int = 40,
    cells: int = 64,
    seed: int = 1000,
) -> GeneratorReport:
    """Compare a generator with its simulator at process points that training never saw."""
    reports, fractions, spreads = [], [], []
    for index, process in enumerate(process_points(simulator.space, points, seed=seed)):
        real = simulator.simulate(
            process, shape=shape, seed=derive_seed(seed, "real", index), n=cells
        )
        made = model.sample(process, shape=shape, seed=derive_seed(seed, "made", index), n=cells)
        reports.append(compare(real, made, seed=seed))
        share = [np.array([c.volume_fractions[1] for c in side]) for side in (made, real)]
        fractions.append(share[0].mean() - share[1].mean())
        spreads.append(share[0].std(ddof=1) / max(share[1].std(ddof=1), 1e-12))
    bias = np.array(fractions)

    def errors(name: str) -> np.ndarray:
        return np.array([report[name].error for report in reports])

    def floors(name: str) -> np.ndarray:
        return np.array([report[name].floor or np.nan for report in reports])

    def ratio(name: str) -> float:
        return float(np.sqrt((errors(name) ** 2).mean() / np.nanmean(floors(name) ** 2)))

    return GeneratorReport(
        points=points,
        cells_per_point=cells,
        fraction_rmse=float(np.sqrt((bias**2).mean())),
        fraction_bias=float(bias.mean()),
        fraction_spread=float(np.median(spreads)),
        s2_error=float(np.median(errors("s2"))),
        s2_floor=float(np.nanmedian(floors("s2"))),
        s2_ratio=ratio("s2"),
        chi_ratio=ratio("chi"),
        lineal_path_error=float(np.median(errors("lineal path"))),
        lineal_path_ratio=ratio("lineal path"),
        surface_error=float(np.median(errors("surface"))),
        surface_ratio=ratio("surface"),
        euler_error=float(np.median(errors("euler"))),
        euler_ratio=ratio("euler"),
    )


def report_rows(report: GeneratorReport) -> list[str]:
    """Return the report as rows of a Markdown table."""
    rows = ["| measure | value |", "|---|---|"]
    for name, value in asdict(report).items():
        rows.append(f"| {name.replace('_', ' ')} | {value:.3g} |")
    return rows
