"""Chapter of the surrogates' benchmark: other resolutions, families and contrasts than learnt."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.stats import rankdata

from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.field_families import Family, kept_families, plane_families
from studies.field_race import SOLVER, Start, raced_errors, shipped_starts
from studies.field_standings import percent
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.surrogate_fields import NETS
from surrogates.labels import coarsened

CONTRASTS = (3.0, 10.0, 100.0, 1000.0)
RESOLVED_CONTRASTS = (10.0, 100.0)
ITERATIONS = (0, 3)


def transfer_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors at half and twice the trained resolution, and against the distance."""
    n, side = (2, 32) if settings.quick else (32 if settings.tier == "full" else 4, 64)
    starts, key = shipped_starts(NETS), weights_key(NETS)
    families = kept_families(
        "transfer.cells", lambda: plane_families(n, side, seed=settings.seed), run
    )
    arrays = {}
    for family in families:
        for contrast in CONTRASTS:
            arrays[family.name, contrast] = _errors(
                f"{key}.{contrast:g}", family, contrast, starts, run
            )
    tables = {"Resolution: the same cells at half and twice the voxels a side": _resolutions(
        families, starts, run, key
    )}  # fmt: skip
    facts = {}
    for k, start in enumerate(starts):
        if start.net is None:
            continue
        tables[f"Near and far from the training set: {start.name}, alone"] = _far(
            families, arrays, k
        )
        distance = np.concatenate([a["distance"][k] for a in arrays.values()])
        width = np.concatenate([a["width"][k, 0] for a in arrays.values()])
        facts[start.name] = {"rank_correlation": _rank_correlation(distance, width)}
    said = "; ".join(f"{f['rank_correlation']:.2f} ({name})" for name, f in facts.items())
    return Chapter(
        name="transfer",
        title="Other resolutions, families and contrasts",
        about=(
            f"{n} cells of {side} x {side} voxels of each family, both ways round of the contrast; "
            "means over cells, the worst in brackets. Resolution: each structure is coarsened to "
            "half its voxels a side (majority) and refined to twice (each voxel cut in four); each "
            "is compared with the solver on its own voxels. `distance` above 1 flags what is "
            "unlike the training set, and another side adds to it. Rank correlation of the "
            f"distance with the width of the bracket, over all cells here: {said}."
        ),
        tables=tables,
        facts=facts,
    )


def _errors(
    label: str, family: Family, contrast: float, starts: Sequence[Start], run: RunFolder
) -> dict[str, np.ndarray]:
    name = f"transfer.{family.name.replace(' ', '-')}.{label}"
    work = partial(raced_errors, family, contrast, starts, ITERATIONS)
    return dict(run.stage(name, lambda: Stage({}, work())).arrays)


def _resolutions(
    families: Sequence[Family], starts: Sequence[Start], run: RunFolder, key: str
) -> Table:
    columns = [
        f"{start.name}, {k} iterations"
        for start in starts
        for k in ITERATIONS
        if start.name != SOLVER or k
    ]
    rows = []
    for family in (f for f in families if f.name in ("spinodal", "discs")):
        for contrast in RESOLVED_CONTRASTS:
            finer = family.phases.repeat_interleave(2, 1).repeat_interleave(2, 2)
            for phases in (coarsened(family.phases, 2), family.phases, finer):
                cells = Family(family.name, family.trained, phases)
                label = f"{key}.{contrast:g}.{phases.shape[1]}"
                found = _errors(label, cells, contrast, starts, run)
                where = f"{family.name}, {phases.shape[1]} voxels, contrast {contrast:g}"
                shown = [
                    (s, j)
                    for s, start in enumerate(starts)
                    for j, k in enumerate(ITERATIONS)
                    if start.name != SOLVER or k
                ]
                for metric, what in (("estimate", "C11"), ("strain", "strain")):
                    texts = [percent(found[metric][s, j]) for s, j in shown]
                    rows.append(plain_row(f"{where}: {what}", texts))
    return Table(tuple(columns), tuple(rows))


def _far(families: Sequence[Family], arrays: dict, start: int) -> Table:
    columns = ("distance, median", "beyond 1", "C11", "bracket's width", "strain")
    rows = []
    for family in families:
        for contrast in CONTRASTS:
            found = arrays[family.name, contrast]
            distance = found["distance"][start]
            texts = [
                f"{np.median(distance):.2f}",
                f"{100 * (distance > 1).mean():.0f} %",
                *(percent(found[m][start, 0]) for m in ("estimate", "width", "strain")),
            ]
            rows.append(plain_row(f"{family.name}, contrast {contrast:g}", texts))
    return Table(columns, tuple(rows))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
