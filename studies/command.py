"""The `mesoforge` command: its verbs, and how it ends on errors and signals.

Every verb imports what it needs when it runs, so that `--help` answers at once.
"""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from microstructures.errors import MicrostructureError
from studies.bench_command import bench
from studies.settings import (
    DemoSettings,
    DesignSettings,
    GenerateSettings,
    PredictSettings,
    SimulateSettings,
    resolve_settings,
    settings_error,
)
from studies.surrogate_verbs import explain, pick
from studies.train_command import train
from studies.verb import (
    DryRun,
    Flags,
    Out,
    Pairs,
    SettingsFile,
    named_ranges,
    named_values,
    run_verb,
    say,
)

app = App(
    name="mesoforge",
    help="Process parameters to microstructures to properties, and back, each with a receipt.",
    version="0.1.0",
    default_parameter=Parameter(consume_multiple=True, negative=()),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.command(bench)
app.command(explain)
app.command(pick)
app.command(train)


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
    run_verb(resolved, out, dry_run, plan=plan, work=lambda: work(resolved, out, verb="demo"))


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
    run_verb(resolved, out, dry_run, plan=plan_design, work=lambda: run_design(resolved, out))


@app.command
def init(folder: Path = Path(), /) -> None:
    """Write the settings of every verb as commented YAML."""
    from studies.example_settings import write_settings

    for path in write_settings(folder):
        say(f"wrote {path}")


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
        both = {**resolved.ranges, **named_ranges(ranges)}
        resolved = resolved.model_copy(update={"ranges": both})
    run_verb(
        resolved, out, dry_run, plan=plan_simulation, work=lambda: run_simulation(resolved, out)
    )


@app.command(name="import")
def import_(
    folder: Path,
    /,
    *,
    table: Annotated[
        Path | None, Parameter(help="CSV: one row per map with its process parameters.")
    ] = None,
    settings: SettingsFile = None,
    out: Out = Path("runs/import"),
    dry_run: DryRun = False,
) -> None:
    """Turn a folder of label maps and a table of process parameters into a data set.

    Without a table: one volume or picture, whose sections become a data set without a process.
    """
    if table is None:
        from studies.section_importation import run_section_import

        for path in run_section_import(folder, settings_file=settings, out=out, dry_run=dry_run):
            say(f"wrote {path}")
        return
    from studies.importation import run_import

    for path in run_import(folder, table, settings_file=settings, out=out, dry_run=dry_run):
        say(f"wrote {path}")


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
    process = {**resolved.process, **named_values(values)}
    resolved = resolved.model_copy(update={"process": process})
    run_verb(
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
    inputs: Annotated[
        tuple[str, ...],
        Parameter(name="--input", help="With --measured-property: its inputs as name=value."),
    ] = (),
    flags: Annotated[PredictSettings | None, Flags] = None,
) -> None:
    """Predict stiffness, its bracket and the fields of structures in files."""
    from studies.prediction import plan_prediction, run_prediction

    resolved = resolve_settings(PredictSettings, settings, flags)
    if resolved.image_surrogate is not None:
        from studies.stress_prediction import run_stress_prediction

        run_verb(
            resolved,
            out,
            dry_run,
            plan=lambda chosen: plan_prediction(files, chosen),
            work=lambda: run_stress_prediction(files, resolved, out),
        )
        return
    if resolved.measured_property is not None:
        from studies.measured_properties import run_measured_prediction

        known = named_values(inputs)
        run_verb(
            resolved,
            out,
            dry_run,
            plan=lambda _: {"memory_mb": 1200, "disk_mb": 1, "minutes": 0.2},
            work=lambda: run_measured_prediction(files, known, resolved, out),
        )
        return
    run_verb(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_prediction(files, chosen),
        work=lambda: run_prediction(files, resolved, out),
    )


@app.command
def report(
    path: str,
    /,
    *,
    against: Annotated[Path | None, Parameter(help="Data set of real structures.")] = None,
    where: Annotated[
        tuple[str, ...], Parameter(help="Condition as name=value; default is all of the data.")
    ] = (),
    n: Annotated[
        int, Parameter(name="-n", help="Structures (per point of a map), at least 2.")
    ] = 32,
    seed: Annotated[int, Parameter(help="Seed of the generated structures.")] = 0,
    out: Annotated[Path | None, Parameter(help="Folder of the fidelity report.")] = None,
    pictures: Annotated[Path | None, Parameter(help="Folder for the figures as PNG files.")] = None,
    training: Annotated[
        Path | None, Parameter(help="The model's training data: look for copies of its images.")
    ] = None,
    measure: Annotated[
        str | None, Parameter(name="--map", help="Map this measured value over the window.")
    ] = None,
    phase: Annotated[str | None, Parameter(help="Phase whose value is mapped.")] = None,
    points: Annotated[int, Parameter(help="Points of the map along each axis.")] = 7,
    shape: Annotated[tuple[int, ...], Parameter(help="Cell of the mapped structures.")] = (64, 64),
) -> None:
    """Render a run's report again, compare a generator with real structures, or map a value."""
    if measure is not None:
        from studies.property_window import run_property_window

        wanted = {"model": path, "measure": measure, "phase": phase, "samples": n, "seed": seed}
        wanted |= {"where": named_values(where), "points": points, "shape": shape}
        say(f"wrote {run_property_window(wanted, out or Path('runs/window'))}")
        return
    if against is None:
        from studies.report import render_run

        say(f"wrote {render_run(Path(path), pictures=pictures)}")
        return
    from studies.fidelity_report import run_fidelity_report

    request = {"where": named_values(where), "n": n, "seed": seed, "pictures": pictures}
    request["training"] = training
    page = run_fidelity_report(path, against, out=out or Path("runs/fidelity"), **request)
    say(f"wrote {page}")


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
