"""MicroBench track C: volumes made from slices, against the volumes that the slices are from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from generators import SectionDiffusion
from generators.microbench import score_generator
from generators.microbench_conditions import Measured, TrueCondition, measure_condition
from generators.microbench_ensembles import Floors
from generators.section_denoiser import SectionDenoiser
from generators.section_matching import unlike_neighbours
from generators.structure_statistics import StructureStatistics
from microstructures import Microstructure
from microstructures.seeds import derive_seed
from physics import radial_mean, specific_surface, two_point_correlation
from physics.processes import RandomField
from studies.bench_chapter import Chapter
from studies.generator_contenders import Contender, draw_samples
from studies.generator_figures import cells_figure
from studies.generator_metrics import error_metric, floor_of
from studies.generator_table import Column, Metric, table
from studies.measured_data import data_folder
from studies.run_folder import RunFolder, Stage
from studies.settings import GeneratorBenchSettings
from studies.stopwatch import one_thread
from studies.volume_data import KnownVolume, anode, berea, cathode

GENERATED = 4
PILOT_SIDE = 96  # of the volumes by which a model of sections is fitted: at 48 they scatter by 7 %


def volume_chapters(
    contenders: Sequence[Contender], settings: GeneratorBenchSettings, run: RunFolder
) -> tuple[list[Chapter], list[Contender]]:
    """Return a chapter for each volume that is there, and the models that none of them judges."""
    chapters, others = [], list(contenders)
    for name, read in (("berea", berea), ("nmc", cathode), ("sofc", anode)):
        volume = read(settings)
        if volume is None:
            about = f"Not measured: no data in {data_folder()}; set MESOFORGE_DATA to its folder."
            chapters.append(Chapter(name, f"Track C: {name}", about, {}))
            continue
        entrants = [(c, volume.entrant(c)) for c in others]
        own = [e for _, e in entrants if e is not None]
        others = [c for c, e in entrants if e is None]
        chapters.append(volume_chapter(volume, own, settings, run))
    return chapters, others


def volume_chapter(
    volume: KnownVolume,
    contenders: Sequence[Contender],
    settings: GeneratorBenchSettings,
    run: RunFolder,
) -> Chapter:
    """Score models and baselines on one volume."""
    shape = tuple(volume.blocks.shape[1:])
    with one_thread():
        real = _measured(volume.blocks, volume)
    truth = [TrueCondition({}, real, len(volume.blocks))]
    floors = Floors.of(truth, made=GENERATED, seed=settings.seed)
    columns, shown = [], {"real": volume.blocks[:GENERATED].numpy()}
    for name, role, draw in _sources(volume, contenders, settings.seed, run):
        drawn = draw()
        labels = torch.from_numpy(drawn.arrays["labels"])
        with one_thread():
            made = _measured(labels, volume)
        score = score_generator(truth, [made], floors, seed=settings.seed)
        fractions = [float((labels == p).double().mean()) for p in range(len(volume.phase_names))]
        facts = {"name": name, "role": role, **drawn.facts, "fractions": fractions}
        columns.append(Column({**facts, "score": score.to_json()}))
        shown[name] = labels[:GENERATED].numpy()
    sides = " x ".join(map(str, shape))
    about = (
        f"{volume.about} {len(volume.blocks)} real blocks of {sides} against {GENERATED} made "
        f"ones, none periodic. {_scatter(real, volume)} Floors are random halves of the blocks, "
        f"scaled to these counts. {_sampled(volume, real)} Surface, S2, lineal path and Euler "
        f"density are of "
        f"{_listed(volume)}. The random field is fitted to the S2 of the "
        "sections."
        + ("" if contenders else " No model was given for this volume: floors and baselines only.")
    )
    return Chapter(
        name=volume.name,
        title=f"Track C: {volume.name}, 2-D to 3-D",
        about=about,
        tables={"": table(volume_metrics(volume), columns)},
        figures=lambda: _pictures(volume, shown),
        real=True,
        made=lambda: _pictures(volume, {c.name: shown[c.name] for c in columns if c.is_model}),
        facts={"rows": [dict(c.facts) for c in columns]},
    )


def volume_metrics(volume: KnownVolume) -> list[Metric]:
    """Return the rows of a volume's table with their bars."""
    berea_bars = volume.name == "berea"
    slack = 0.01 if berea_bars else 0.02
    true = [float((volume.blocks == p).double().mean()) for p in range(len(volume.phase_names))]

    def worst(column: Column) -> float:
        return max(abs(f - t) for f, t in zip(column.facts["fractions"], true, strict=True))

    def seconds(column: Column) -> str:
        value = column.number("cpu_seconds")
        return "" if value is None else f"{value:.3g}"

    bars: Mapping[str, float] = {"surface": 0.03, "s2": 0.05} if berea_bars else {}
    rows = [
        Metric(
            f"M1 fractions, worst (real {', '.join(f'{t:.3f}' for t in true)})",
            f"within {slack:g}",
            lambda c: f"{worst(c):.4f}",
            worst,
            lambda v: v <= slack,
            lambda c: "" if floor_of(c, "fraction") is None else f"{floor_of(c, 'fraction'):.4f}",
        )
    ]
    for number, key, title in (
        ("M2", "s2", "S2"),
        ("M2", "chi", "chi"),
        ("M3", "lineal path", "lineal path"),
        ("M4", "surface", "surface"),
        ("M4", "euler", "Euler density"),
    ):
        rows.append(_bounded(error_metric(number, key, title, "stated"), bars.get(key)))
    rows.append(Metric("M12 CPU s per block, one thread", "stated", seconds))
    return rows


def _bounded(metric: Metric, limit: float | None) -> Metric:
    if limit is None:
        return metric
    asked = f"at most {100 * limit:g} %"
    return replace(metric, asked=asked, reached=lambda v: v <= limit)


def _measured(labels: Tensor, volume: KnownVolume) -> Measured:
    """Measure blocks, not periodic, of the phases that the volume is judged by."""
    found = measure_condition(labels, n_phases=len(volume.phase_names), periodic=False)
    chosen = list(volume.phases)
    kept = {name: v[:, chosen] for name, v in found.statistics.arrays().items()}
    return Measured(StructureStatistics(**kept), distance=found.distance)


def _sources(
    volume: KnownVolume, contenders: Sequence[Contender], seed: int, run: RunFolder
) -> list[tuple[str, str, Callable[[], Stage]]]:
    """Return name, role and draw of every column."""
    found: list[tuple[str, str, Callable[[], Stage]]] = [
        ("one section, extruded", "baseline", lambda: _extruded(volume))
    ]
    if len(volume.phase_names) == 2:
        found.append(
            (
                "Gaussian random field",
                "baseline",
                lambda: run.stage(f"{volume.name}.random-field", lambda: _field(volume, seed)),
            )
        )
    for contender in contenders:
        found.append((contender.name, "model", partial(_drawn, contender, volume, seed, run)))
    return found


def _drawn(contender: Contender, volume: KnownVolume, seed: int, run: RunFolder) -> Stage:
    """Return blocks of a model, each a stage of its own: one may take minutes."""
    side, multiple = volume.blocks.shape[1:], contender.model.size_multiple
    whole = [-(-n // multiple) * multiple for n in side]

    def one(k: int) -> Stage:
        own = derive_seed(seed, "block", k)
        drawn = draw_samples(contender.model, [{}], n=1, shape=whole, seed=own)
        cut = drawn.labels[(slice(None), *[slice(n) for n in side])]
        return Stage({"cpu_seconds": drawn.cpu_seconds}, {"labels": cut.numpy()})

    facts = {}
    model = contender.model
    if isinstance(model, SectionDiffusion) and not len(model.space):
        pilot = [min(n, PILOT_SIDE) for n in whole]

        seen = float(unlike_neighbours(volume.slices.long(), (False, False)).mean())

        def fitted() -> Stage:
            weight = model.fit_opinions({}, shape=pilot, seed=seed, interfaces=seen)
            return Stage({"opinions": weight, "interfaces": seen}, {})

        facts = dict(run.stage(f"{volume.name}.{contender.stage}-opinions", fitted).facts)
        net = cast(SectionDenoiser, model.net)
        net.opinions, net.interfaces = facts["opinions"], facts["interfaces"]
    blocks = [
        run.stage(f"{volume.name}.{contender.stage}-{k}", partial(one, k)) for k in range(GENERATED)
    ]
    seconds = float(np.mean([block.facts["cpu_seconds"] for block in blocks]))
    return Stage(
        {**facts, "cpu_seconds": seconds, "parameters": contender.parameters},
        {"labels": np.concatenate([block.arrays["labels"] for block in blocks])},
    )


def _extruded(volume: KnownVolume) -> Stage:
    """Return pieces of the sections, each repeated along the third axis."""
    side = volume.blocks.shape[1]
    count = len(volume.slices)
    pieces = [volume.slices[k * count // GENERATED, :side, :side] for k in range(GENERATED)]
    labels = torch.stack([p[:, :, None].expand(-1, -1, side) for p in pieces])
    return Stage({}, {"labels": labels.numpy()})


def _field(volume: KnownVolume, seed: int) -> Stage:
    """Return cuts of a Gaussian field with the fraction and S2 of the sections."""
    names = volume.phase_names
    sections = [
        Microstructure(s, periodic=(False,), phase_names=names) for s in volume.slices.numpy()
    ]
    field = RandomField.fit(sections)
    with one_thread():
        cells = field.simulate(
            field.space.from_unit([0.5, 0.5]),
            shape=tuple(volume.blocks.shape[1:]),
            seed=derive_seed(seed, "random field", volume.name),
            n=GENERATED,
        )
    return Stage({}, {"labels": np.stack([c.phases for c in cells])})


def _scatter(real: Measured, volume: KnownVolume) -> str:
    """Say how well the mean over the real blocks is known."""
    fraction, surface = real.statistics.fractions, real.statistics.surface
    n = len(surface)
    said = [
        f"{volume.phase_names[phase]}: fraction {fraction[:, k].mean():.4f} ± "
        f"{fraction[:, k].std(ddof=1) / n**0.5:.4f}, surface {surface[:, k].mean():.4f} ± "
        f"{surface[:, k].std(ddof=1) / n**0.5:.4f} per voxel"
        for k, phase in enumerate(volume.phases)
    ]
    return f"Mean over the real blocks with its standard error: {'; '.join(said)}."


def _sampled(volume: KnownVolume, real: Measured) -> str:
    """Say how far the sections are from the blocks: what no method that sees them alone can mend.

    Lines cross as many interfaces in a section as in the volume: the surface of a phase in the
    volume is 4/pi times its boundary in sections (Underwood 1970).
    """
    reach, said = real.statistics.max_lag, []
    for k, phase in enumerate(volume.phases):
        seen = (volume.slices == phase).float()
        s2 = radial_mean(two_point_correlation(seen, periodic=False), max_lag=reach).mean(0).numpy()
        surface = 4 / np.pi * float(specific_surface(seen, periodic=False).mean())
        true, faces = real.statistics.s2[:, k].mean(0), real.statistics.surface[:, k].mean()
        share = seen.mean((1, 2)).double()
        said.append(
            f"{volume.phase_names[phase]}: fraction {float(share.mean()):.4f} ± "
            f"{float(share.std()) / len(share) ** 0.5:.4f}, surface {surface:.4f} per voxel "
            f"({100 * abs(surface / faces - 1):.3g} % off), S2 "
            f"{100 * abs(s2 - true).mean() / true.mean():.3g} % off"
        )
    return (
        f"The {len(volume.slices)} sections at hand against the blocks (standard error as of "
        f"independent ones): {'; '.join(said)}."
    )


def _listed(volume: KnownVolume) -> str:
    return ", ".join(f"{volume.phase_names[p]}" for p in volume.phases)


def _pictures(volume: KnownVolume, shown: Mapping[str, np.ndarray]) -> Mapping[str, str]:
    if not shown:
        return {}
    titles = [f"block {k + 1}" for k in range(GENERATED)]
    caption = "Middle sections of blocks."
    return {
        caption: cells_figure(
            {k: list(v) for k, v in shown.items()}, titles, n_phases=len(volume.phase_names)
        )
    }
