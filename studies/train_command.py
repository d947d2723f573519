"""The verb `train` as the command line has it."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from studies.verb import DryRun, Pairs, SettingsFile, named_ranges, named_values, say


def train(
    what: Literal[
        "generator",
        "gate",
        "surrogate",
        "property",
        "active-property",
        "measured",
        "plastic",
        "image-field",
        "micrograph",
    ],
    /,
    *,
    data: Annotated[Path, Parameter(help="Data set: the folder that simulate or import wrote.")],
    out: Annotated[Path, Parameter(help="Folder of the trained model.")],
    settings: SettingsFile = None,
    values: Pairs = (),
    family: Annotated[
        Literal["diffusion", "gan", "vae"], Parameter(help="Family of generator.")
    ] = "diffusion",
    ranges: Annotated[
        tuple[str, ...],
        Parameter(name="--range", help="Train on a narrower window, as name=low:high."),
    ] = (),
    held_out: Annotated[
        tuple[str, ...], Parameter(help="Leave out a cell of the window, as name=low:high.")
    ] = (),
    sections: Annotated[
        tuple[Path, ...],
        Parameter(
            help="For a GAN of volumes: data sets of sections normal to axis 1 and 2, where they "
            "differ from the data, which are then those normal to axis 0."
        ),
    ] = (),
    also: Annotated[
        tuple[Path, ...], Parameter(help="For a property surrogate: further data sets.")
    ] = (),
    table: Annotated[
        Path | None,
        Parameter(help="For a measured property: CSV, one row per specimen with its numbers."),
    ] = None,
    init_from: Annotated[
        str | None, Parameter(help="Fine-tune weights: a shipped name or a folder.")
    ] = None,
    control: Annotated[
        bool, Parameter(help="With --init-from: also train from scratch, in OUT/control.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Train a generator, a statistics gate, a surrogate of fields or properties, or a renderer."""
    known = named_values(values)
    if what == "measured":
        from studies.measured_properties import run_measured_training

        made = run_measured_training(
            data, table, settings_file=settings, values=known, out=out, dry_run=dry_run
        )
        _tell(made)
        return
    from studies.training import run_training

    made = run_training(
        what,
        data,
        settings_file=settings,
        values=known | ({"init_from": init_from} if init_from else {}),
        out=out,
        dry_run=dry_run,
        family=family,
        window=named_ranges(ranges),
        held_out=named_ranges(held_out),
        sections=sections,
        also=also,
        control=control,
    )
    _tell(made)


def _tell(made: Path | None) -> None:
    if made:
        say(f"wrote {made}")
