"""A chapter of the surrogates' benchmark: property nets on families that training never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.run_folder import RunFolder, Stage
from studies.settings import ProcessName, SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.surrogate_accuracy import (
    CELLS_AT_ONCE,
    CONTRAST,
    FIRST_TEST_CELL,
    Extent,
    covered,
    errors,
    fitted_ridge,
    matrices,
    net_settings,
    trained_net,
)
from studies.surrogate_cells import family_cells, solved_cells
from surrogates import PropertySurrogate
from surrogates.labels import LabelledCells
from surrogates.property_training import PropertySettings

SHIPPED = "stiffness-2d"
SHIPPED_CONTRASTS = (1.0, 30.0)
SHIPPED_POISSON_RATIOS = (0.05, 0.45)
LEAST_FRACTION = 0.01


@dataclass(frozen=True)
class Family:
    """Test cells of one simulator, behind those that trained the shipped weights."""

    title: str
    process: ProcessName
    first: int
    count: int
    contrast: float = CONTRAST

    @property
    def name(self) -> str:
        """Stem of its stages."""
        return f"{self.process}-{self.contrast:g}"


FAMILIES = (
    Family("spinodal", "spinodal", FIRST_TEST_CELL, 300),
    Family("nucleation", "nucleation-growth", 2000, 300),
    Family("powder bed", "powder-bed-fusion", 1500, 500),
    Family("random field", "random-field", 0, 200),
    Family("spinodal, contrast 30", "spinodal", FIRST_TEST_CELL, 300, 30.0),
    Family("spinodal, contrast 100", "spinodal", FIRST_TEST_CELL, 300, 100.0),
)


def unfamiliar_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return error, coverage and distance by family, of a net of one family and the shipped one."""
    extent = Extent.of(settings)
    count = max(number for number, _ in extent.trained)
    families = FAMILIES[:2] if settings.quick else FAMILIES
    narrow = _measured(families, count, settings, run)
    tables = {f"Net of {count} spinodal cells at contrast {CONTRAST:g}": _table(narrow)}
    facts = {"narrow": narrow}
    if extent.side == 64:
        own = [f for f in families if f.contrast == CONTRAST]
        wide = {f.title: _shipped(f, settings, run).facts for f in own}
        low, high = SHIPPED_CONTRASTS
        caption = f"{SHIPPED}: trained on all four families, contrasts {low:g} to {high:g}"
        tables[caption] = _table(wide)
        facts["shipped"] = wide
    return Chapter(
        name="unfamiliar",
        title="Effective stiffness out of distribution",
        about=(
            f"Test cells of {extent.side} x {extent.side} voxels with at least "
            f"{100 * LEAST_FRACTION:g} % of each phase, those of powder beds taken as one period, "
            "seams and all. Errors as in the chapter before; coverage of the 90 % interval, mean "
            "over a matrix's entries: it is promised for cells like those of training and for no "
            "others. Distance is that from the training set in (contrast, Poisson's ratios, "
            "fraction, two-point correlation), 1 at the 95 % quantile within it; above 1 the "
            "ladder does not trust the net."
        ),
        tables=tables,
        facts=facts,
    )


def _measured(
    families: Sequence[Family], count: int, settings: SurrogateBenchSettings, run: RunFolder
) -> dict[str, dict[str, float]]:
    """Return the facts of the net and the ridges of this many spinodal cells, by family."""

    def work() -> Stage:
        known = net_settings(count, settings)
        net = trained_net(count, settings, run)
        ridges = {
            "ridge_mean": fitted_ridge(count, settings, run),
            "ridge_with_steps_mean": fitted_ridge(count, settings, run, steps=known.steps),
        }
        facts = {}
        for family in families:
            contrast = {"lowest_contrast": family.contrast, "highest_contrast": family.contrast}
            chosen = known.model_copy(update=contrast)
            cells = _cells(family, "unfamiliar", chosen, settings, run)
            facts[family.title] = _facts(net, cells) | {
                name: errors(ridge.predict(cells), cells)["mean"] for name, ridge in ridges.items()
            }
        return Stage(facts)

    return run.stage(f"unfamiliar-{count}", work).facts


def _shipped(family: Family, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    def work() -> Stage:
        low, high = SHIPPED_CONTRASTS
        nu_low, nu_high = SHIPPED_POISSON_RATIOS
        chosen = PropertySettings.model_validate(
            {
                "lowest_contrast": low,
                "highest_contrast": high,
                "lowest_poisson_ratio": nu_low,
                "highest_poisson_ratio": nu_high,
            }
        )
        cells = _cells(family, "shipped", chosen, settings, run)
        return Stage(_facts(PropertySurrogate.from_pretrained(SHIPPED), cells))

    return run.stage(f"unfamiliar-{weights_key([SHIPPED])}-{family.name}", work)


def _cells(
    family: Family,
    part: str,
    chosen: PropertySettings,
    settings: SurrogateBenchSettings,
    run: RunFolder,
) -> LabelledCells:
    cells = family_cells(
        run,
        family.process,
        first=family.first,
        count=24 if settings.quick else family.count,
        side=Extent.of(settings).side,
        least_fraction=LEAST_FRACTION,
    )
    return solved_cells(run, f"{part}-{family.name}", cells, chosen)


def _facts(net: PropertySurrogate, cells: LabelledCells) -> dict[str, float]:
    value, spread = matrices(net, cells)
    inside = covered(value, net.margins * spread, cells)
    rows = torch.arange(len(cells)).split(CELLS_AT_ONCE)
    distance = torch.cat([net.familiarity(cells.fields(part, cells.phases[part])) for part in rows])
    return {
        "cells": len(cells),
        **errors(value, cells),
        "coverage": sum(inside) / len(inside),
        "distance": float(distance.median()),
        "beyond": float((distance > 1).double().mean()),
    }


def _table(found: Mapping[str, Mapping[str, float]]) -> Table:
    shown = {
        "cells": ("cells", 1, "{:.0f}"),
        "mean": ("error, mean (%)", 100, "{:.2f}"),
        "highest": ("error, highest (%)", 100, "{:.2f}"),
        "c11_mean": ("C11 error, mean (%)", 100, "{:.2f}"),
        "ridge_mean": ("descriptor ridge, error, mean (%)", 100, "{:.2f}"),
        "ridge_with_steps_mean": ("ridge with the first steps' bound, mean (%)", 100, "{:.2f}"),
        "coverage": ("inside the 90 % interval (%)", 100, "{:.1f}"),
        "distance": ("distance, median", 1, "{:.2f}"),
        "beyond": ("share beyond distance 1 (%)", 100, "{:.0f}"),
    }
    facts = list(found.values())
    rows = [
        plain_row(title, [form.format(scale * each[key]) for each in facts])
        for key, (title, scale, form) in shown.items()
        if key in facts[0]
    ]
    return Table(tuple(found), tuple(rows))
