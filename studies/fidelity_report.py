"""The fidelity report: a generator's structures against real ones, beside the noise floor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.fidelity import MEANING, FidelityReport, compare
from generators.generator import ConditionalGenerator
from microstructures import DataError, Microstructure, MicrostructureDataset
from microstructures.publishing import publish_json, publish_text
from physics import lineal_path, radial_mean, two_point_correlation
from studies.density_figure import CAPTION, density_figure
from studies.evaluation import as_batch
from studies.figures import DESIGN, INK, drawing, publish_pictures, structure_row
from studies.memorisation_report import find_copies, nearest_figure
from studies.models import load_generator
from studies.own_data import history_figure
from studies.report import render
from studies.run_folder import find_folder, open_run
from studies.settings import Settings, resolve_settings, setting

SHOWN = 4
FEWEST = 4


class FidelitySettings(Settings):
    """What a fidelity report compares."""

    model: str
    dataset: str
    where: dict[str, float | str] = setting({}, "Condition, name to value")
    n: int = setting(32, "Structures to generate", ge=2, le=100_000)
    seed: int = setting(0, "Seed of the generated structures", ge=0)
    training: str | None = setting(None, "Digest of the training data, to look for copies of it")


@dataclass(frozen=True)
class Comparison:
    """Real and generated structures of one condition, how they differ, and how familiar it is."""

    real: MicrostructureDataset
    generated: Sequence[Microstructure]
    report: FidelityReport
    density: str = ""


@dataclass(frozen=True)
class OwnData:
    """What the report says besides of a model that was trained on own data.

    Args:
        control: The same comparison of the control that was trained from scratch.
        memorisation: What was found about copies of training images, in words.
        nearest: Figure of the structures most like a training image; it shows real maps.
        history: Figure of the distances by which early stopping judged.
    """

    control: FidelityReport | None = None
    memorisation: str = ""
    nearest: str = ""
    history: str = ""


def run_fidelity_report(
    model: str,
    data: Path,
    *,
    where: Mapping[str, Any],
    n: int,
    seed: int,
    out: Path,
    pictures: Path | None = None,
    training: Path | None = None,
) -> Path:
    """Compare a generator with the real structures of a condition; return the HTML report.

    Writes fidelity.json and report.html. With `training`, the model's training data, generated
    structures are compared with its images one by one (MicroBench M9). A control that was trained
    beside the model (`train --control`) is compared in the same way. The report holds pictures of
    the real structures: keep it where their licence allows. With `pictures` the curves and the
    generated structures, never the real ones, are also written as PNG files.

    Raises:
        DataError: The model and the data do not fit each other, or too few samples are left.
    """
    dataset = MicrostructureDataset.open(find_folder(data, "dataset"))
    known = None if training is None else _opened(training)
    wanted = {"model": model, "dataset": dataset.digest, "where": where, "n": n, "seed": seed}
    wanted["training"] = None if known is None else known.digest
    settings = resolve_settings(FidelitySettings, None, wanted)
    real = select(dataset, where)
    with open_run(out, settings, verb="report") as run:
        comparison = compare_model(model, real, n=settings.n, seed=seed)
        print(comparison.report)
        facts = {"where": dict(where), **comparison.report.to_json()}
        extra, found = _own_data(model, comparison, known, seed=settings.seed)
        facts |= found
        publish_json(run.path / "fidelity.json", facts)
        if pictures is not None:
            publish_pictures(_our_figures(comparison), pictures)
        return publish_text(run.path / "report.html", render_comparison(comparison, where, extra))


def _own_data(
    model: str, comparison: Comparison, training: MicrostructureDataset | None, *, seed: int
) -> tuple[OwnData, dict[str, Any]]:
    """Return what is said and drawn besides, and its facts."""
    facts: dict[str, Any] = {}
    words = nearest = ""
    if training is not None:
        generated = as_batch(comparison.generated)
        copies = find_copies(generated, comparison.real, training)
        words, nearest = copies.sentence, nearest_figure(generated, training, copies)
        facts["memorisation"] = copies.to_json()
        print(f"memorisation: {words}")
    control, folder = None, Path(model) / "control"
    if (folder / "manifest.json").is_file():
        n = len(comparison.generated)
        control = compare_model(str(folder), comparison.real, n=n, seed=seed).report
        facts["control"] = control.to_json()
        print(f"control, trained from scratch:\n{control}")
    return OwnData(control, words, nearest, history_figure(Path(model))), facts


def _opened(data: Path) -> MicrostructureDataset:
    return MicrostructureDataset.open(find_folder(data, "dataset"))


def select(dataset: MicrostructureDataset, where: Mapping[str, Any]) -> MicrostructureDataset:
    """Return the samples of one condition.

    Raises:
        DataError: A name is unknown, or fewer than four samples are left.
    """
    dataset.space.to_unit(where)
    keep = [k for k in range(len(dataset)) if _matches(dataset[k].process, where)]
    if len(keep) < FEWEST:
        said = ", ".join(f"{name} = {value}" for name, value in where.items()) or "no condition"
        raise DataError(
            f"expected at least {FEWEST} real structures with {said}, found {len(keep)} of "
            f"{len(dataset)}; choose a condition of the data"
        )
    return dataset.subset(keep)


def compare_model(model: str, real: MicrostructureDataset, *, n: int, seed: int) -> Comparison:
    """Generate n structures at the real ones' own processes and compare.

    Raises:
        DataError: Parameters, phases or voxel size of model and data differ.
    """
    generator = load_generator(model)
    _check_same(generator, real)
    # Evenly over the real samples, so that both sides have the same mix of conditions.
    chosen = [int(k * len(real) / n) % len(real) for k in range(n)]
    generated = generator.sample([real[k].process for k in chosen], shape=real.shape, seed=seed)
    groups = real.sources if "import" in real.about else None
    report = compare(
        real.phases, as_batch(generated), groups=groups, periodic=real.periodic, seed=seed
    )
    asked = [sample.process for sample in generated]
    density = density_figure(generator.space, generator.training_density, asked)
    return Comparison(real, generated, report, density)


def _check_same(model: ConditionalGenerator, real: MicrostructureDataset) -> None:
    """Refuse data that differ from the model in what the comparison takes to be the same."""
    pairs: dict[str, tuple[Any, Any]] = {
        "process parameters": (model.space.names, real.space.names),
        "phases": (tuple(model.phase_names), tuple(real.phase_names)),
        "periodic axes": (tuple(model.periodic), tuple(real.periodic)),
        "voxel size in micrometres": (model.voxel_size_um, real.voxel_size_um),
    }
    for what, (ours, theirs) in pairs.items():
        close = isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-6)
        if ours != theirs and not close:
            raise DataError(
                f"expected data with the model's {what}, {_told(ours)}, got {_told(theirs)}; "
                "compare with data imported or simulated as the model's training data were"
            )


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else ", ".join(map(str, value)) or "none"


def render_comparison(
    comparison: Comparison, where: Mapping[str, Any], extra: OwnData | None = None
) -> str:
    """Return the report as one self-contained HTML page."""
    real, generated = comparison.real, comparison.generated
    table = comparison.report.table()
    voxel, n_phases = real.voxel_size_um, len(real.phase_names)
    picked = np.linspace(0, len(real) - 1, min(SHOWN, len(real))).round().astype(int)
    shown = [real.phases[int(k)].numpy() for k in picked]
    shown += [s.phases for s in generated[: len(shown)]]
    titles = ["real"] * len(picked) + ["generated"] * len(picked)
    page = {
        "condition": [(name, str(value)) for name, value in where.items()],
        "counts": comparison.report.counts,
        "heading": table[0],
        "rows": table[1:],
        "meaning": MEANING,
        "phase_names": real.phase_names,
        "grouped": comparison.report.n_groups is not None,
        "structures": structure_row(shown, titles, voxel_size_um=voxel, n_phases=n_phases),
        "curves": curves_figure(comparison),
        "density": comparison.density,
        "density_caption": CAPTION,
        "own": extra or OwnData(),
    }
    return render("fidelity.html.j2", page)


def _our_figures(comparison: Comparison) -> dict[str, str]:
    generated, real = comparison.generated[:6], comparison.real
    structures = structure_row(
        [sample.phases for sample in generated],
        ["generated"] * len(generated),
        voxel_size_um=real.voxel_size_um,
        n_phases=len(real.phase_names),
    )
    curves = curves_figure(comparison)
    return {"generated": structures, "curves": curves, "density": comparison.density}


def curves_figure(comparison: Comparison) -> str:
    """Return S2 and lineal path of every phase, real with the spread of samples, generated."""
    real, reach = comparison.real, comparison.report.max_lag
    generated = as_batch(comparison.generated)
    lag = np.arange(reach + 1) * real.voxel_size_um
    with drawing(len(real.phase_names), 2, width=3.0 * len(real.phase_names), height=4.8) as made:
        for phase, name in enumerate(real.phase_names):
            for row, measure in enumerate((_s2, _lineal)):
                axis = made.axes[row, phase]
                ours = measure(generated == phase, reach, real.periodic)
                theirs = measure(real.phases == phase, reach, real.periodic)
                low, high = np.quantile(theirs, [0.05, 0.95], axis=0)
                axis.fill_between(
                    lag, low, high, color=INK, alpha=0.15, label="real, 90 % of samples"
                )
                axis.plot(lag, theirs.mean(0), color=INK, linewidth=0.9, label="real, mean")
                axis.plot(lag, ours.mean(0), color=DESIGN, label="generated, mean")
                axis.set_title(name.replace("$", r"\$") if row == 0 else "")
                axis.set_xlabel("lag r (µm)" if row else "")
                axis.set_ylabel("" if phase else ("lineal path (-)" if row else "S2 (-)"))
        made.axes[0, 0].legend()
        return made.data_uri()


def _s2(indicator: Tensor, reach: int, periodic: tuple[bool, ...]) -> np.ndarray:
    correlation = two_point_correlation(indicator.to(torch.float32), periodic=periodic)
    return radial_mean(correlation, max_lag=reach).double().numpy()


def _lineal(indicator: Tensor, reach: int, periodic: tuple[bool, ...]) -> np.ndarray:
    path = lineal_path(indicator.to(torch.float32), max_lag=reach, periodic=periodic)
    return path.mean(1).double().numpy()


def _matches(process: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    def same(value: Any, wanted: Any) -> bool:
        if isinstance(value, (int, float)) and isinstance(wanted, (int, float)):
            return math.isclose(value, wanted, rel_tol=1e-6)
        return str(value) == str(wanted)

    return all(same(process.get(name), wanted) for name, wanted in where.items())
