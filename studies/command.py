"""The `mesoforge` command: its verbs, and how it ends on errors and signals.

Every verb imports what it needs when it runs, so that `--help` answers at once.
"""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from microstructures.errors import DataError, MicrostructureError
from studies.settings import (
    BenchSettings,
    DemoSettings,
    DesignSettings,
    GenerateSettings,
    GeneratorBenchSettings,
    PredictSettings,
    SimulateSettings,
    resolve_settings,
    settings_error,
)

Flags = Parameter(name="*")
Out = Annotated[Path, Parameter(help="Folder to write; repeat on the same folder to resume.")]
SettingsFile = Annotated[Path | None, Parameter(help="YAML file; flags override it.")]
DryRun = Annotated[bool, Parameter(help="Print settings and expected cost; write nothing.")]
Pairs = Annotated[tuple[str, ...], Parameter(name="--set", help="Values as name=value.")]

app = App(
    name="mesoforge",
    help="Process parameters to microstructures to properties, and back, each with a receipt.",
    version="0.1.0",
    default_parameter=Parameter(consume_multiple=True, negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


class Terminated(SystemExit):
    """SIGTERM came: leave the way Ctrl-C does, training with a last checkpoint."""


@app.command
def demo(
    *,
    out: Out = Path("runs/demo"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[DemoSettings | None, Flags] = None,
) -> None:
    """Design a spinodal alloy with the shipped weights and check it; minutes on two cores."""
    resolved = resolve_settings(DemoSettings, settings, flags)
    if resolved.from_scratch:
        from studies.from_scratch import plan_from_scratch, run_from_scratch

        work, plan = run_from_scratch, plan_from_scratch
    else:
        from studies.design import plan_design, run_design

        work, plan = run_design, plan_design
    _run(resolved, out, dry_run, plan=plan, work=lambda: work(resolved, out, verb="demo"))


@app.command
def design(
    *,
    out: Out = Path("runs/design"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[DesignSettings | None, Flags] = None,
) -> None:
    """Find process and structure with wanted properties, confirm them, check the process."""
    from studies.design import plan_design, run_design

    resolved = resolve_settings(DesignSettings, settings, flags)
    _run(resolved, out, dry_run, plan=plan_design, work=lambda: run_design(resolved, out))


@app.command
def init(folder: Path = Path(), /) -> None:
    """Write the settings of every verb as commented YAML."""
    from studies.example_settings import write_settings

    for path in write_settings(folder):
        _say(f"wrote {path}")


@app.command
def simulate(
    *,
    out: Out = Path("runs/simulate"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    ranges: Annotated[
        tuple[str, ...], Parameter(name="--range", help="Narrower ranges as name=low:high.")
    ] = (),
    flags: Annotated[SimulateSettings | None, Flags] = None,
) -> None:
    """Simulate a data set of structures over a process space."""
    from studies.simulation import plan_simulation, run_simulation

    resolved = resolve_settings(SimulateSettings, settings, flags)
    if ranges:
        both = {**resolved.ranges, **_ranges(ranges)}
        resolved = resolved.model_copy(update={"ranges": both})
    _run(resolved, out, dry_run, plan=plan_simulation, work=lambda: run_simulation(resolved, out))


@app.command(name="import")
def import_(
    folder: Path,
    /,
    *,
    table: Annotated[Path, Parameter(help="CSV: one row per map with its process parameters.")],
    settings: SettingsFile = None,
    out: Out = Path("runs/import"),
    dry_run: DryRun = False,
) -> None:
    """Turn a folder of label maps and a table of process parameters into a data set."""
    from studies.importation import run_import

    for path in run_import(folder, table, settings_file=settings, out=out, dry_run=dry_run):
        _say(f"wrote {path}")


@app.command
def train(
    what: Literal["generator", "gate", "surrogate"],
    /,
    *,
    data: Annotated[Path, Parameter(help="Data set: the folder that simulate or import wrote.")],
    out: Annotated[Path, Parameter(help="Folder of the trained model.")],
    settings: SettingsFile = None,
    values: Pairs = (),
    family: Annotated[
        Literal["diffusion", "gan", "vae"], Parameter(help="Family of generator.")
    ] = "diffusion",
    dry_run: DryRun = False,
) -> None:
    """Train a generator, a statistics gate or a field surrogate on a data set."""
    from studies.training import run_training

    made = run_training(
        what,
        data,
        settings_file=settings,
        values=_pairs(values),
        out=out,
        dry_run=dry_run,
        family=family,
    )
    if made:
        _say(f"wrote {made}")


@app.command
def generate(
    model: str,
    /,
    *,
    values: Pairs = (),
    out: Out = Path("runs/generate"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[GenerateSettings | None, Flags] = None,
) -> None:
    """Generate structures at process parameters given as `--set name=value ...`."""
    from studies.generation import plan_generation, run_generation

    resolved = resolve_settings(GenerateSettings, settings, flags)
    process = {**resolved.process, **_pairs(values)}
    resolved = resolved.model_copy(update={"process": process})
    _run(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_generation(model, chosen),
        work=lambda: run_generation(model, resolved, out),
    )


@app.command
def predict(
    files: tuple[Path, ...],
    /,
    *,
    out: Out = Path("runs/predict"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[PredictSettings | None, Flags] = None,
) -> None:
    """Predict stiffness, its bracket and the fields of structures in files."""
    from studies.prediction import plan_prediction, run_prediction

    resolved = resolve_settings(PredictSettings, settings, flags)
    _run(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_prediction(files, chosen),
        work=lambda: run_prediction(files, resolved, out),
    )


bench = App(name="bench", help="Measure against bars and rivals; a table, JSON and a page.")
app.command(bench)

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
    _run(
        resolved,
        out,
        dry_run,
        plan=plan_bench,
        work=lambda: run_bench(physics_sections(), resolved, out),
    )
    if page is not None and not dry_run:
        _say(f"wrote {copy_page(out, page)}")


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
    entrants = Entrants(model, training, _ranges(held_out))
    _run(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_generator_bench(entrants, chosen),
        work=lambda: run_generator_bench(entrants, resolved, out),
    )
    if page is not None and not dry_run:
        _say(f"wrote {copy_page(out, page)}")


@app.command
def report(
    path: str,
    /,
    *,
    against: Annotated[Path | None, Parameter(help="Data set of real structures.")] = None,
    where: Annotated[
        tuple[str, ...], Parameter(help="Condition as name=value; default is all of the data.")
    ] = (),
    n: Annotated[int, Parameter(name="-n", help="Structures to generate, at least 2.")] = 32,
    seed: Annotated[int, Parameter(help="Seed of the generated structures.")] = 0,
    out: Annotated[Path | None, Parameter(help="Folder of the fidelity report.")] = None,
    pictures: Annotated[Path | None, Parameter(help="Folder for the figures as PNG files.")] = None,
) -> None:
    """Render a run's report again, or compare a generator with real structures."""
    if against is None:
        from studies.report import render_run

        _say(f"wrote {render_run(Path(path), pictures=pictures)}")
        return
    from studies.fidelity_report import run_fidelity_report

    request = {"where": _pairs(where), "n": n, "seed": seed, "pictures": pictures}
    page = run_fidelity_report(path, against, out=out or Path("runs/fidelity"), **request)
    _say(f"wrote {page}")


@app.command
def doctor() -> None:
    """Check this installation: versions, memory, shipped weights, and the solver itself."""
    from studies.doctor import examine

    if not examine():
        sys.exit(1)


def main() -> None:
    """Run the command: 0 fine, 2 bad input, 130 Ctrl-C, 143 SIGTERM; errors in one sentence."""
    # Idle threads that spin double the CPU time of small nets for no gain.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(sys.argv[1:], print_error=False, exit_on_error=False)
    except MicrostructureError as error:
        _fail(str(error), 2)
    except CycloptsError as error:
        cause = error.__cause__
        _fail(settings_error(cause) if isinstance(cause, ValidationError) else str(error), 2)
    except KeyboardInterrupt:
        _fail(_resume_line("interrupted"), 130)
    except Terminated:
        _fail(_resume_line("terminated"), 143)


def _run(settings: Any, out: Path, dry_run: bool, *, plan: Any, work: Any) -> None:
    """Print the plan of a dry run, else work and say where the results stand."""
    if dry_run:
        from studies.settings_text import settings_yaml

        print(settings_yaml({**settings.model_dump(mode="json"), "expected": plan(settings)}))
        return
    found = work()
    for sentence in found.get("verdict", ()) if isinstance(found, dict) else ():
        print(sentence)
    _say(f"wrote {out}")


def _pairs(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return name=value texts as a dict; numbers as numbers, [a, b] as a list."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise DataError(f"expected name=value, got {text!r}; for example temperature_k=700")
        values[name] = _value(value)
    return values


def _ranges(texts: tuple[str, ...]) -> dict[str, list[float]]:
    """Return name=low:high texts as a dict."""
    ranges = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            low, high = (float(bound) for bound in value.split(":"))
        except ValueError as error:
            raise DataError(
                f"expected name=low:high, got {text!r}; for example composition=0.4:0.5"
            ) from error
        ranges[name] = [low, high]
    return ranges


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("[") else float(text)
    except ValueError:
        return text


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, style="green", markup=False, highlight=False, soft_wrap=True)


def _fail(message: str, code: int) -> None:
    from rich.console import Console

    # One printable line: a hostile name in a file must not steer the terminal.
    line = "".join(c if c.isprintable() else " " for c in " ".join(message.split()))
    Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _resume_line(what: str) -> str:
    return f"{what}; to resume, repeat: mesoforge {shlex.join(sys.argv[1:])}"


def _terminate(*_: object) -> None:
    raise Terminated
