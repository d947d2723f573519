"""Chapter of the surrogates' benchmark: a 3-D field net against the stopped solver."""

from functools import partial

from studies.bench_chapter import Chapter
from studies.bench_table import Row, Table, plain_row
from studies.field_families import kept_families, volume_families
from studies.field_race import shipped_starts
from studies.field_standings import (
    Extent,
    Raced,
    cost_table,
    percent_cell,
    race_facts,
    race_figure,
    raced,
    verdict_on,
)
from studies.run_folder import RunFolder
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key

NETS = ("elastic-3d-fno",)
CONTRASTS = (100.0, 1000.0)
ITERATIONS = (0, 1, 2, 3, 5, 8, 12, 16)


def volumes_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors and costs of 3-D cells at contrast 100 and more."""
    starts, key = shipped_starts(NETS), weights_key(NETS)
    found, counts = {}, {}
    for side, extent in _extents(settings).items():
        families = kept_families(
            f"volumes.{side}.cells",
            partial(volume_families, extent.cells, side, seed=settings.seed),
            run,
        )
        counts[side] = extent.cells
        for contrast in CONTRASTS:
            stage = f"volumes.{key}.{side}.{contrast:g}"
            name = f"{side}^3, contrast {contrast:g}"
            found[name] = raced(stage, families, contrast, starts, extent, run)
    tables = {f"{name}: errors of C11": _errors(one) for name, one in found.items()}
    for name, one in found.items():
        tables[f"{name}: CPU ms per cell to a mean error of C11"] = cost_table(one)
    cells = ", ".join(f"{n} of {side}^3 voxels" for side, n in counts.items())
    return Chapter(
        name="volumes",
        title="Linear fields in 3-D: a net against the solver, stopped early",
        about=(
            f"Cells of each family: {cells}; both ways round of the contrast, Poisson's ratio 0.3. "
            "The net learnt spinodal cells of 24^3 voxels at contrast 10 to 1000, no mosaics. "
            "Means over cells, the worst cell in brackets; C11 is taken from its bracket as in "
            "2-D. Costs as in 2-D, all six load cases and "
            "the certificate included. "
            + " ".join(verdict_on(one, name) for name, one in found.items())
        ),
        tables=tables,
        figures=partial(_figures, found),
        facts={name: race_facts(one) for name, one in found.items()},
    )


def _extents(settings: SurrogateBenchSettings) -> dict[int, Extent]:
    if settings.quick:
        return {16: Extent(1, 16, 1, (0, 3))}
    if settings.tier == "full":
        return {32: Extent(8, 32, 3, ITERATIONS), 64: Extent(2, 64, 1, ITERATIONS)}
    return {32: Extent(3, 32, 3, ITERATIONS), 64: Extent(1, 64, 3, ITERATIONS)}


def _errors(found: Raced) -> Table:
    rows = []
    for j, k in enumerate(found.iterations):
        for family, errors in found.errors.items():
            cells = tuple(percent_cell(errors["estimate"][s, j]) for s in range(len(found.starts)))
            rows.append(Row(f"{family}, {k} iterations", cells))
        costs = [f"{found.costs[s, j]:.3g}" for s in range(len(found.starts))]
        rows.append(plain_row(f"CPU ms per cell, {k} iterations", costs))
    return Table(found.starts, tuple(rows))


def _figures(found: dict[str, Raced]) -> dict[str, str]:
    return {
        "Mean error of C11 against CPU time per cell in 3-D, certificate included.": (
            race_figure(found)
        )
    }
