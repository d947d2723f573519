"""The verbs that ask surrogates about themselves: `explain` and `pick`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from studies.settings import ExplainSettings, PickSettings, resolve_settings
from studies.verb import DryRun, Flags, Out, SettingsFile, run_verb


def explain(
    file: Path,
    /,
    *,
    region: Annotated[
        Path | None,
        Parameter(help="Picture of the structure's shape: labels above 0 mark a region."),
    ] = None,
    out: Out = Path("runs/explain"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[ExplainSettings | None, Flags] = None,
) -> None:
    """Draw where a property surrogate looks in a structure, beside where it should look."""
    from studies.explanation import plan_explanation, run_explanation

    resolved = resolve_settings(ExplainSettings, settings, flags)
    run_verb(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_explanation(file, chosen),
        work=lambda: run_explanation(file, region, resolved, out),
    )


def pick(
    *,
    data: Annotated[Path, Parameter(help="The pool: the folder that simulate or import wrote.")],
    labelled: Annotated[
        tuple[Path, ...], Parameter(help="Folders of earlier picks, labelled by now.")
    ] = (),
    out: Out = Path("runs/pick"),
    settings: SettingsFile = None,
    dry_run: DryRun = False,
    flags: Annotated[PickSettings | None, Flags] = None,
) -> None:
    """Pick the cells of a pool whose labels would teach a surrogate most.

    By the spread of a property surrogate, the certificate of a field surrogate, or, with neither,
    that of the solver's first steps.
    """
    from studies.picking import plan_picking, run_picking

    resolved = resolve_settings(PickSettings, settings, flags)
    run_verb(
        resolved,
        out,
        dry_run,
        plan=lambda chosen: plan_picking(data, labelled, chosen),
        work=lambda: run_picking(data, labelled, resolved, out),
    )
