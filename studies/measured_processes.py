"""MicroBench track B: generators against structures that were measured, process by process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from generators.microbench import score_generator
from generators.microbench_baselines import nearest_training_images, random_field_cells
from generators.microbench_conditions import TrueCondition, measure_condition
from generators.microbench_ensembles import Floors
from microstructures import Microstructure, MicrostructureDataset
from microstructures.seeds import derive_seed
from studies.bench_chapter import Chapter
from studies.bench_table import Table
from studies.generator_contenders import Contender, draw_samples
from studies.generator_figures import calibration_figure, cells_figure, ratio_figure
from studies.generator_metrics import track_metrics
from studies.generator_table import Column, Metric, table
from studies.measured_data import MeasuredProcess, data_folder, heat_treated_steel, spherulites
from studies.run_folder import RunFolder, Stage
from studies.settings import GeneratorBenchSettings
from studies.stopwatch import one_thread

GENERATED, QUICK_GENERATED = 64, 8
CRYSTALLINE = {160.0: 0.506, 180.0: 0.589, 200.0: 0.633}
CRYSTALLINE_SLACK = 0.015
UNSTATED = ("M9", "M11")


def measured_chapters(
    contenders: Sequence[Contender], settings: GeneratorBenchSettings, run: RunFolder
) -> tuple[list[Chapter], list[Contender]]:
    """Return a chapter for each data set that is there, and the models that none of them judges."""
    chapters, others = [], list(contenders)
    for name, read in (("spherulites", spherulites), ("uhcs", heat_treated_steel)):
        process = read(run)
        if process is None:
            about = f"Not measured: no data in {data_folder()}; set MESOFORGE_DATA to its folder."
            chapters.append(Chapter(name, f"Track B: {name}", about, {}))
            continue
        own = [c for c in others if process.judges(c)]
        others = [c for c in others if c not in own]
        chapters.append(measured_chapter(process, own, settings, run))
    return chapters, others


def measured_chapter(
    process: MeasuredProcess,
    contenders: Sequence[Contender],
    settings: GeneratorBenchSettings,
    run: RunFolder,
) -> Chapter:
    """Score models and baselines on one measured process."""
    n = QUICK_GENERATED if settings.quick else GENERATED
    truth = _truth(process)
    floors = Floors.of(truth, made=n, seed=settings.seed)
    shape = tuple(process.labels[0].shape[1:])
    columns, cells = [], {}
    for name, role, stage, draw in _sources(process, contenders, n, shape, settings.seed):
        drawn = run.stage(stage, draw)
        labels = torch.from_numpy(drawn.arrays["labels"])
        cells[name] = labels[::n].numpy()
        made = [
            measure_condition(
                part,
                n_phases=len(process.phase_names),
                periodic=process.periodic,
                solved=range(len(part)) if process.solved else (),
            )
            for part in labels.split(n)
        ]
        score = score_generator(
            truth, made, floors, phase_names=process.phase_names, seed=settings.seed
        )
        columns.append(
            Column({"name": name, "role": role, **drawn.facts, "score": score.to_json()})
        )
    counts = ", ".join(str(len(labels)) for labels in process.labels)
    about = (
        f"{process.about} Real samples by condition: {counts}; {n} generated at each. Floors are "
        "random halves of the real samples"
        + (" by map." if process.groups[0] else ", scaled to these counts.")
        + ("" if contenders else " No model was given for this data: floors and baselines only.")
    )
    return Chapter(
        name=process.name,
        title=process.title,
        about=about,
        tables=_tables(process, columns, truth, floors),
        figures=lambda: _pictures(process, columns, cells),
        real=True,
        facts={"rows": [dict(c.facts) for c in columns]},
    )


def _truth(process: MeasuredProcess) -> list[TrueCondition]:
    conditions = []
    with one_thread():
        for point, labels, groups in zip(
            process.points, process.labels, process.groups, strict=True
        ):
            measured = measure_condition(
                labels,
                n_phases=len(process.phase_names),
                periodic=process.periodic,
                solved=range(len(labels)) if process.solved else (),
            )
            conditions.append(TrueCondition(point, measured, len(labels), groups))
    return conditions


def _sources(
    process: MeasuredProcess,
    contenders: Sequence[Contender],
    n: int,
    shape: tuple[int, ...],
    seed: int,
) -> list[tuple[str, str, str, Callable[[], Stage]]]:
    """Return name, role, stage and draw of every column."""
    found: list[tuple[str, str, str, Callable[[], Stage]]] = []
    if len(process.phase_names) == 2:
        stage = f"{process.name}.Gaussian-random-field"
        draw = partial(_field, process, n, shape, seed)
        found.append(("Gaussian random field", "baseline", stage, draw))
    if process.training is not None:
        stage = f"{process.name}.nearest-training-images"
        draw = partial(_copies, process, process.training, n)
        found.append(("nearest training images", "baseline", stage, draw))
    for contender in contenders:
        stage = f"{process.name}.{contender.stage}"
        draw = partial(_model, process, contender, n, shape, seed)
        found.append((contender.name, "model", stage, draw))
    return found


def _model(
    process: MeasuredProcess, contender: Contender, n: int, shape: tuple[int, ...], seed: int
) -> Stage:
    points = process.process_of(contender)
    drawn = draw_samples(contender.model, points, n=n, shape=shape, seed=seed)
    facts = {
        "cpu_seconds": drawn.cpu_seconds,
        "peak_gb": drawn.peak_gb,
        "parameters": contender.parameters,
        "training_time": contender.training_time,
    }
    return Stage(facts, {"labels": drawn.labels.numpy()})


def _copies(process: MeasuredProcess, training: MicrostructureDataset, n: int) -> Stage:
    copies = [nearest_training_images(training, point, n=n) for point in process.points]
    return Stage({}, {"labels": torch.cat(copies).numpy()})


def _field(process: MeasuredProcess, n: int, shape: tuple[int, ...], seed: int) -> Stage:
    cells = []
    for k, labels in enumerate(process.labels):
        real = [
            Microstructure(m, periodic=process.periodic, phase_names=process.phase_names)
            for m in labels.numpy()
        ]
        own = derive_seed(seed, "random field", k)
        cells.append(random_field_cells(real, n=n, shape=shape, seed=own))
    return Stage({}, {"labels": torch.cat(cells).numpy()})


def _tables(
    process: MeasuredProcess,
    columns: Sequence[Column],
    truth: Sequence[TrueCondition],
    floors: Floors,
) -> Mapping[str, Table]:
    if not columns:
        return {}
    shape = tuple(process.labels[0].shape[1:])
    metrics = [
        replace(m, asked="stated", reached=None)
        for m in track_metrics(shape)
        if not m.name.startswith(UNSTATED) and (process.solved or not m.name.startswith("M5"))
    ]
    tables = {"": table(metrics, columns)}
    if process.name == "spherulites":
        tables["Crystalline fraction by temperature"] = table(
            [_fraction_row(k, t, truth) for k, t in enumerate(sorted(CRYSTALLINE))], columns
        )
    return tables


def _fraction_row(k: int, temperature: float, truth: Sequence[TrueCondition]) -> Metric:
    """Return the row of one temperature's crystalline fraction."""
    wanted = CRYSTALLINE[temperature]
    real = truth[k].real.descriptors()["fraction"]
    spread = float(real.std(ddof=1) / np.sqrt(len(real)))

    def value(column: Column) -> float:
        found = next(c for c in column.score.calibrations if c.name == "fraction")
        return found.made[k]

    return Metric(
        f"{temperature:g} °C (data {real.mean():.3f})",
        f"{wanted:g} ± {CRYSTALLINE_SLACK:g}",
        lambda c: f"{value(c):.4f}",
        value,
        lambda v: abs(v - wanted) <= CRYSTALLINE_SLACK,
        lambda c: f"± {spread:.3f}",
    )


def _pictures(
    process: MeasuredProcess, columns: Sequence[Column], cells: Mapping[str, Sequence[np.ndarray]]
) -> Mapping[str, str]:
    shown = {"real": [labels[0].numpy() for labels in process.labels], **cells}
    titles = [
        "\n".join(f"{v:g}" if isinstance(v, float) else str(v) for v in p.values())
        for p in process.points
    ]
    pictures = {
        "The first sample of every condition.": cells_figure(
            shown, titles, n_phases=len(process.phase_names)
        )
    }
    if columns:
        pictures["Errors over the floor."] = ratio_figure(columns)
        if len(process.phase_names) == 2:
            pictures["Condition means."] = calibration_figure(columns)
    return pictures
