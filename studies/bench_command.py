"""The verb `bench` and what it measures: physics, generators, surrogates, micrographs."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from studies.settings import (
    BenchSettings,
    GeneratorBenchSettings,
    MicrographBenchSettings,
    SurrogateBenchSettings,
    resolve_settings,
)
from studies.verb import DryRun, Flags, Out, SettingsFile, named_ranges, run_verb, say

bench = App(name="bench", help="Measure against bars and rivals; a table, JSON and a page.")
Page = Annotated[Path | None, Parameter(help="Folder for a copy of the page.")]


@bench.command(name="physics")
def bench_physics(
    *,
    out: Out = Path("runs/bench-physics"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    page: Page = None,
    flags: Annotated[BenchSettings | None, Flags] = None,
) -> None:
    """Measure speed, brackets and closed forms against their bars, peers in the same run."""
    from studies.bench import plan_bench, run_bench
    from studies.bench_page import copy_page
    from studies.bench_physics import physics_sections

    resolved = resolve_settings(BenchSettings, settings, flags)
    run_verb(
        resolved,
        out,
        dry_run,
        plan=plan_bench,
        work=lambda: run_bench(physics_sections(), resolved, out),
    )
    if page is not None and not dry_run:
        say(f"wrote {copy_page(out, page)}")


@bench.command(name="generators")
def bench_generators(
    *,
    model: Annotated[tuple[str, ...], Parameter(help="Generators: shipped names or folders.")] = (
        "spinodal-2d-diffusion",
    ),
    training: Annotated[
        tuple[Path, ...], Parameter(help="Their training data, for memorisation and baseline.")
    ] = (),
    held_out: Annotated[
        tuple[str, ...],
        Parameter(help="Part of the window that training left out, as name=low:high."),
    ] = (),
    out: Out = Path("runs/bench-generators"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    page: Page = None,
    flags: Annotated[GeneratorBenchSettings | None, Flags] = None,
) -> None:
    """MicroBench: generators against fresh simulations and real data, floors beside them."""
    from studies.bench_generators import Entrants, plan_generator_bench, run_generator_bench
    from studies.bench_page import copy_page

    resolved = resolve_settings(GeneratorBenchSettings, settings, flags)
    entrants = Entrants(model, training, named_ranges(held_out))
    run_verb(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_generator_bench(entrants, chosen),
        work=lambda: run_generator_bench(entrants, resolved, out),
    )
    if page is not None and not dry_run:
        say(f"wrote {copy_page(out, page)}")


@bench.command(name="surrogates")
def bench_surrogates(
    *,
    chapter: Annotated[
        tuple[str, ...], Parameter(help="Chapters to measure and show; default is all.")
    ] = (),
    out: Out = Path("runs/bench-surrogates"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    page: Page = None,
    flags: Annotated[SurrogateBenchSettings | None, Flags] = None,
) -> None:
    """Surrogates against the solver and their baselines: errors, intervals and costs."""
    from studies.bench_page import copy_page
    from studies.bench_surrogates import plan_surrogate_bench, run_surrogate_bench

    resolved = resolve_settings(SurrogateBenchSettings, settings, flags)
    run_verb(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_surrogate_bench(chapter, chosen),
        work=lambda: run_surrogate_bench(chapter, resolved, out),
    )
    if page is not None and not dry_run:
        say(f"wrote {copy_page(out, page)}")


@bench.command(name="micrographs")
def bench_micrographs(
    *,
    data: Annotated[Path, Parameter(help="Whole pictures with a grey channel: an import.")],
    renderer: Annotated[Path, Parameter(help="YAML of the renderer, as for train micrograph.")],
    generator: Annotated[
        Path | None, Parameter(help="YAML of a generator of phases, as for train generator.")
    ] = None,
    out: Out = Path("runs/bench-micrographs"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    page: Page = None,
    flags: Annotated[MicrographBenchSettings | None, Flags] = None,
) -> None:
    """Train on some pictures, compare rendered ones with the rest, and train segmenters on both."""
    from studies.bench_page import copy_page
    from studies.micrograph_bench import plan_micrograph_bench, run_micrograph_bench

    resolved = resolve_settings(MicrographBenchSettings, settings, flags)
    run_verb(
        resolved,
        out,
        dry_run,
        plan=plan_micrograph_bench,
        work=lambda: run_micrograph_bench(data, renderer, generator, resolved, out),
    )
    if page is not None and not dry_run:
        say(f"wrote {copy_page(out, page)}")
