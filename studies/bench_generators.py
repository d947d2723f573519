"""What `mesoforge bench generators` measures: MicroBench over its tracks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microstructures import DataError, MicrostructureDataset
from studies.bench import print_bars
from studies.bench_chapter import Chapter
from studies.chapter_page import publish_chapters
from studies.exact_truth import ExactTrack, exact_tracks
from studies.generator_contenders import Contender, load_contenders
from studies.generator_metrics import track_metrics
from studies.generator_rows import measure_track
from studies.generator_table import Column, table
from studies.published_generators import PUBLISHED
from studies.run_folder import RunFolder, find_folder, open_run
from studies.settings import GeneratorBenchSettings


@dataclass(frozen=True)
class Entrants:
    """Who takes part.

    Args:
        models: Shipped names or folders.
        trainings: Folders of training data.
        held_out: Part of the process window that training left out, name to [low, high].
    """

    models: Sequence[str]
    trainings: Sequence[Path] = ()
    held_out: Mapping[str, list[float]] = field(default_factory=dict)


def run_generator_bench(
    entrants: Entrants, settings: GeneratorBenchSettings, out: Path
) -> dict[str, Any]:
    """Measure every track, write results, the page, and a local page with real data.

    Truth and samples are stages of the folder: further models use the truth that is there.

    Raises:
        DataError: The folder holds a run of other settings, or a model fits no track.
        CheckpointError: A model or data set is missing or altered.
    """
    contenders = load_contenders(entrants.models)
    trainings = [
        MicrostructureDataset.open(find_folder(folder, "dataset")) for folder in entrants.trainings
    ]
    _check_held_out(entrants.held_out, contenders)
    with open_run(out, settings, verb="bench generators") as run:
        chapters = _chapters(contenders, trainings, entrants, settings, run)
        results = publish_chapters(
            out,
            chapters,
            settings,
            template="bench_generators.md.j2",
            models={c.name: c.digest for c in contenders},
            told={"published": PUBLISHED},
        )
    print_bars(results)
    return results


def plan_generator_bench(entrants: Entrants, settings: GeneratorBenchSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and CPU minutes, from runs on one core."""
    own = 6 if settings.tier == "small" else 60
    minutes = 1 if settings.quick else 10 * own / 6 + own * len(entrants.models)
    return {"memory_mb": 2000, "disk_mb": 60, "minutes": minutes}


def _chapters(
    contenders: Sequence[Contender],
    trainings: Sequence[MicrostructureDataset],
    entrants: Entrants,
    settings: GeneratorBenchSettings,
    run: RunFolder,
) -> list[Chapter]:
    from studies.known_volumes import volume_chapters
    from studies.measured_processes import measured_chapters

    tier = "toy" if settings.quick else settings.tier
    tracks, others = exact_tracks(contenders, trainings, tier=tier, seed=settings.seed)
    chapters = []
    if "A" in settings.track:
        chapters += [_exact_chapter(track, entrants.held_out, run) for track in tracks]
    if "B" in settings.track:
        found, others = measured_chapters(others, settings, run)
        chapters += found
    if "C" in settings.track:
        found, others = volume_chapters(others, settings, run)
        chapters += found
    if others:
        raise DataError(
            "expected models of a simulator's parameters, phases and voxel size, or of the data "
            f"of tracks B and C, got {', '.join(c.name for c in others)} that fits none of the "
            f"tracks {', '.join(settings.track)}; choose other tracks or models"
        )
    return chapters


def _exact_chapter(
    track: ExactTrack, held_out: Mapping[str, list[float]], run: RunFolder
) -> Chapter:
    from studies.generator_pictures import track_pictures

    facts = measure_track(track, run, held_out=held_out)
    columns = [Column(row) for row in facts["rows"]]
    sides = " x ".join(map(str, track.extent.shape))
    extent = track.extent
    about = (
        f"{extent.points} process points that training never saw "
        f"(`process_points(space, {extent.points}, seed={1000 + track.seed})`); {extent.cells} "
        f"generated against {extent.cells} freshly simulated cells at each, "
        f"{extent.solved} of them solved for properties (contrast 10). Lags to a quarter of the "
        "side. The floor is real against real: RMS over 200 random splits of "
        f"{2 * extent.cells} simulated cells into halves. An error is the mean over points; an "
        "error over floor is RMS over RMS with a 95 % bootstrap interval over points. The first "
        "column holds the other half of the simulated cells, as a perfect generator would be. "
        + (
            "No training data was given: memorisation and the baseline of training images are "
            "not measured. "
            if facts["training_images"] is None
            else f"Training set of {facts['training_images']} cells. "
        )
        + f"A simulated cell takes {facts['simulation_cpu_seconds']:.3g} CPU s."
    )
    return Chapter(
        name=track.name,
        title=f"Track A: {track.process}, {sides}",
        about=about,
        tables={"": table(track_metrics(extent.shape), columns)},
        figures=lambda: track_pictures(track, columns, run),
        facts=facts,
    )


def _check_held_out(held_out: Mapping[str, list[float]], contenders: Sequence[Contender]) -> None:
    """Raise DataError for a held-out range of a parameter that no model has."""
    known = {name for c in contenders for name in c.model.space.names}
    for name in held_out:
        if name not in known:
            raise DataError(
                f"expected a held-out range of {', '.join(sorted(known))}, got {name!r}"
            )
