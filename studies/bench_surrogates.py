"""What `mesoforge bench surrogates` measures: fields and properties against the solver."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from microstructures import DataError
from studies.bench import print_bars
from studies.bench_chapter import Chapter
from studies.chapter_page import publish_chapters
from studies.progress import progress_bar
from studies.run_folder import RunFolder, open_run
from studies.settings import SurrogateBenchSettings

ChapterMaker = Callable[[SurrogateBenchSettings, RunFolder], Chapter]
"""Measures one chapter. What takes time is a stage of the run, its name begun with the chapter's;
a finished stage is read, not repeated, so that the run resumes."""


def surrogate_chapters() -> dict[str, ChapterMaker]:
    """Return what makes each chapter, by name, in the order of the page."""
    from studies.surrogate_accuracy import accuracy_chapter
    from studies.surrogate_active import active_chapter
    from studies.surrogate_attention import attention_chapter
    from studies.surrogate_certificate import certificate_chapter
    from studies.surrogate_fields import fields_chapter
    from studies.surrogate_image_field import image_field_chapter
    from studies.surrogate_plasticity import plasticity_chapter
    from studies.surrogate_quantities import quantities_chapter
    from studies.surrogate_rungs import rungs_chapter
    from studies.surrogate_transfer import transfer_chapter
    from studies.surrogate_unfamiliar import unfamiliar_chapter
    from studies.surrogate_volumes import volumes_chapter

    return {
        "accuracy": accuracy_chapter,
        "unfamiliar": unfamiliar_chapter,
        "rungs": rungs_chapter,
        "fields": fields_chapter,
        "certificate": certificate_chapter,
        "transfer": transfer_chapter,
        "volumes": volumes_chapter,
        "plasticity": plasticity_chapter,
        "quantities": quantities_chapter,
        "image-field": image_field_chapter,
        "active": active_chapter,
        "attention": attention_chapter,
    }


def run_surrogate_bench(
    names: Sequence[str], settings: SurrogateBenchSettings, out: Path
) -> dict[str, Any]:
    """Measure the named chapters (all where none is named), write results and the page.

    A chapter that the folder has already is read from it; the page shows the named ones.

    Raises:
        DataError: The folder holds a run of other settings, or there is no such chapter.
    """
    makers = _chosen(names)
    with open_run(out, settings, verb="bench surrogates") as run:
        chapters = []
        with progress_bar("bench", len(makers)) as advance:
            for count, make in enumerate(makers.values(), start=1):
                chapters.append(make(settings, run))
                advance(count)
        results = publish_chapters(
            out,
            chapters,
            settings,
            template="bench_surrogates.md.j2",
            models=_shipped_digests(),
            told={},
        )
    print_bars(results)
    return results


def plan_surrogate_bench(names: Sequence[str], settings: SurrogateBenchSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and CPU minutes, from runs on one core."""
    own = 0.1 if settings.quick else 10 if settings.tier == "small" else 40
    return {"memory_mb": 3000, "disk_mb": 100, "minutes": round(own * len(_chosen(names)), 1)}


def _chosen(names: Sequence[str]) -> dict[str, ChapterMaker]:
    known = surrogate_chapters()
    for name in names:
        if name not in known:
            raise DataError(f"expected a chapter of {', '.join(known)}, got {name!r}")
    return {name: make for name, make in known.items() if not names or name in names}


def _shipped_digests() -> dict[str, str]:
    """Return the hash of all shipped surrogates, by name."""
    from microstructures.publishing import folder_digest
    from surrogates.saved_nets import SHIPPED

    folders = sorted(path.parent for path in SHIPPED.glob("*/manifest.json"))
    return {folder.name: folder_digest(folder) for folder in folders}
