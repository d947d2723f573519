"""What `mesoforge bench micrographs` measures: rendered against real micrographs, and their use."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from generators.diffusion_training import DiffusionSettings
from generators.micrograph_fidelity import GreyErrors, compare_grey, grey_statistics
from generators.micrograph_training import MicrographSettings
from microstructures import (
    Microstructure,
    MicrostructureDataset,
    read_microstructure,
    write_vtkhdf,
)
from microstructures.publishing import publish_text
from microstructures.seeds import derive_seed
from studies.micrograph_page import write_micrograph_page
from studies.micrograph_sources import (
    Pictures,
    TrainedPair,
    generated_phases,
    naive_micrographs,
    trained_pair,
)
from studies.run_folder import RunFolder, Stage, find_folder, open_run
from studies.segmentation import intersections_over_unions, train_segmenter
from studies.settings import MicrographBenchSettings, resolve_settings
from studies.settings_text import settings_yaml
from studies.stopwatch import machine_description, one_thread

REAL, RENDERED = "real training pictures", "held-out masks, rendered"
ANEW = "training masks, rendered anew"
GENERATED, NAIVE = "generated masks, rendered", "flat phases with white noise"


def run_micrograph_bench(
    data: Path,
    renderer: Path,
    generator: Path | None,
    settings: MicrographBenchSettings,
    out: Path,
) -> dict[str, Any]:
    """Train, render, compare and use; write `results.json` and the page, and return the results.

    Pictures are split by specimen. Errors against the held-out real pictures are taken process by
    process and averaged; the real training pictures give the floor.

    Raises:
        DataError: The data has no grey channel or one specimen only, or the folder holds a run of
            other settings.
    """
    dataset = MicrostructureDataset.open(find_folder(data, "dataset"))
    render_settings = resolve_settings(MicrographSettings, renderer, None)
    phase_settings = resolve_settings(DiffusionSettings, generator, None) if generator else None
    inputs = {
        "data": dataset.digest,
        "renderer": settings_yaml(render_settings),
        "generator": settings_yaml(phase_settings) if phase_settings else "none",
    }
    with open_run(out, settings, verb="bench micrographs", inputs=inputs) as run, one_thread():
        training, held_out = dataset.split(settings.held_out, seed=settings.seed)
        pair = trained_pair(training, render_settings, phase_settings, run.path, crop=settings.crop)
        sources = _sources(training, held_out, pair, settings, run)
        looks = run.stage("looks", lambda: _looks(sources, _all(held_out)))
        uses = run.stage("uses", lambda: _uses(sources, _all(held_out), settings))
        results = {
            "machine": machine_description(),
            "settings": settings.model_dump(mode="json"),
            "pictures": {
                "training": sorted(training.sources),
                "held out": sorted(held_out.sources),
            },
            "phase_names": list(dataset.phase_names),
            "shape": list(dataset.shape),
            "looks": looks.facts["errors"],
            "uses": uses.facts["scores"],
        }
        publish_text(out / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
        # Masks that a model made may be shown; real ones may not.
        write_micrograph_page(out / "page", results, sources.get(GENERATED, []))
    return results


def plan_micrograph_bench(settings: MicrographBenchSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and CPU minutes without the trainings of the nets."""
    segmenters = 4 * settings.segmenters * settings.segmenter_steps * 0.2 / 60
    return {"memory_mb": 1500, "disk_mb": 20, "minutes": round(2 + segmenters, 1)}


def _sources(
    training: MicrostructureDataset,
    held_out: MicrostructureDataset,
    pair: TrainedPair,
    settings: MicrographBenchSettings,
    run: RunFolder,
) -> dict[str, Pictures]:
    """Return pictures by what they are; those drawn by a model are kept in the run's folder."""
    known, masks = _all(training), _all(held_out)

    def rendered() -> Pictures:
        return pair.renderer.render(masks, seed=derive_seed(settings.seed, "rendered"))

    def generated() -> Pictures:
        assert pair.generator is not None
        made = generated_phases(
            pair.generator,
            [dict(p) for p in sorted({tuple(m.process.items()) for m in known}, key=str)],
            n=settings.pictures,
            shape=training.shape,
            seed=derive_seed(settings.seed, "phases"),
        )
        return pair.renderer.render(made, seed=derive_seed(settings.seed, "generated"))

    def anew() -> Pictures:
        return pair.renderer.render(known, seed=derive_seed(settings.seed, "anew"))

    sources = {
        REAL: known,
        RENDERED: _kept(run, "rendered", rendered),
        ANEW: _kept(run, "anew", anew),
    }
    if pair.generator is not None:
        sources[GENERATED] = _kept(run, "generated", generated)
    like = sources.get(GENERATED, sources[ANEW])
    sources[NAIVE] = naive_micrographs(like, known, seed=settings.seed)
    return sources


def _all(dataset: MicrostructureDataset) -> list[Microstructure]:
    return [dataset[k] for k in range(len(dataset))]


def _kept(run: RunFolder, name: str, draw: Callable[[], Pictures]) -> Pictures:
    """Return drawn pictures, from their VTKHDF files where those are finished."""
    folder = run.path / name

    def work() -> Stage:
        folder.mkdir(exist_ok=True)
        pictures = draw()
        for k, picture in enumerate(pictures):
            write_vtkhdf(picture, folder / f"picture-{k:03d}.vtkhdf")
        return Stage({"pictures": len(pictures)})

    count = run.stage(name, work).facts["pictures"]
    return [read_microstructure(folder / f"picture-{k:03d}.vtkhdf") for k in range(count)]


def _looks(sources: dict[str, Pictures], held_out: Pictures) -> Stage:
    """Compare each source with the held-out pictures, process by process."""
    processes: list[Mapping[str, Any]] = []
    for picture in held_out:
        if picture.process not in processes:
            processes.append(picture.process)
    errors = {}
    for name, pictures in sources.items():
        parts = []
        for process in processes:
            made = [p for p in pictures if p.process == process]
            if not made:
                continue
            real = [p for p in held_out if p.process == process]
            parts.append(compare_grey(grey_statistics(made), grey_statistics(real)))
        errors[name] = _mean(parts)
    return Stage({"errors": errors})


def _mean(parts: Sequence[GreyErrors]) -> dict[str, float]:
    rows = [asdict(part) for part in parts]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _uses(
    sources: dict[str, Pictures], held_out: Pictures, settings: MicrographBenchSettings
) -> Stage:
    """Train segmenters on each source, test them on the held-out real pictures."""
    teachers = {name: pictures for name, pictures in sources.items() if name != RENDERED}
    drawn = GENERATED if GENERATED in sources else ANEW
    teachers[f"real, and {drawn}"] = [*sources[REAL], *sources[drawn]]
    scores = {}
    for name, pictures in teachers.items():
        found = []
        for k in range(settings.segmenters):
            net = train_segmenter(
                pictures,
                n_phases=held_out[0].n_phases,
                steps=settings.segmenter_steps,
                seed=derive_seed(settings.seed, "segmenter", k),
            )
            found.append(intersections_over_unions(net, held_out).tolist())
        scores[name] = {"pictures": len(pictures), "iou": found}
    return Stage({"scores": scores})
