"""What `mesoforge bench physics` measures, and the bars it sets beside it."""

from collections.abc import Sequence
from typing import Any

from studies.bench import Bar, Rows, Section
from studies.bench_figures import (
    convergence_figure,
    ratio_figure,
    solver_figure,
    width_figure,
)
from studies.process_gallery import gallery_figure, simulation_costs
from studies.race_contrast import contrast_bars, race_contrast
from studies.settings import BenchSettings


def physics_sections() -> list[Section]:
    """Return the sections in the order they are measured: the quick ones first."""
    return [
        Section(
            "solvers",
            "Elastic solver against muGrid",
            "Full stiffness of one threshold Gaussian field, zero start, each code stopped by the "
            "loosest residual that brings its value within 1e-6 of its own converged one. muGrid "
            "takes its value from energies here, which is its faster way; its mean stresses and "
            "single precision are in the results. Our iterations run in single precision with a "
            "double-precision residual.",
            _solvers,
            _solver_bars,
            solver_figure,
        ),
        Section(
            "contrast",
            "Pores and high contrast",
            "All loads of one threshold Gaussian field from zero to a residual of 1e-6, by the "
            "Green operator and by block conjugate gradients with multigrid, its set-up included. "
            "Double precision, one thread.",
            _contrast,
            contrast_bars,
        ),
        Section(
            "many-cells",
            "Labels for training",
            "Strain fields of three load cases of 64^2 cells, contrast 10, single precision, every "
            "field within 1e-4 of the converged one; measured on a sample and scaled to 10,000.",
            _many_cells,
            _many_cells_bars,
        ),
        Section(
            "correlation",
            "Two-point correlation",
            "S2 of random voxels against pymks and porespy, one thread. porespy returns a radial "
            "curve of non-periodic images; ours is the whole map.",
            _correlation,
            lambda rows: [_faster(row, 10.0) for row in rows],
            ratio_figure,
        ),
        Section(
            "cahn-hilliard",
            "Cahn-Hilliard step",
            "One time step at 256^2 against evoxels' spectral IMEX step (first order, constant "
            "mobility), set-up left out, each code in single precision. The order of our step "
            "stands in the name; the simulator takes the second-order one in double precision.",
            _cahn_hilliard,
            _cahn_hilliard_bars,
        ),
        Section(
            "closed-forms",
            "Closed forms",
            "Relative error of the effective conductivity at contrast 10 against exact values. "
            "Round inclusions are compared at the fraction that the voxels have.",
            _closed_forms,
            _closed_form_bars,
            convergence_figure,
        ),
        Section(
            "processes",
            "Process simulators",
            "One cell of each process, one thread. Grains are coloured at random.",
            _processes,
            _process_bars,
            gallery_figure,
        ),
        Section(
            "coarsening",
            "Laws of coarsening and growth",
            "Domain length of the Cahn-Hilliard equation over a decade of late times, and the "
            "mean grain radius of grain growth.",
            _coarsening,
            _coarsening_bars,
        ),
        Section(
            "widths",
            "Width of the continuum bracket",
            "Threshold Gaussian fields, correlation length 12 voxels in 2-D; relative width of "
            "C11 (or k11), mean of the cells; no refinement.",
            _widths,
            _width_bars,
            width_figure,
        ),
        Section(
            "bracket-cost",
            "Cost of the continuum bracket",
            "CPU seconds of bracket and of one full solve to the default tolerance, one thread.",
            _bracket_cost,
            _cost_bars,
        ),
        Section(
            "containment",
            "The bracket contains the refined value",
            "Random cells of all families, elastic and conducting, 2-D and 3-D, contrast to 1e4: "
            "the q1 value on voxels refined four times lies inside, relative slack 1e-6.",
            _containment,
            lambda rows: [_none_broken(row) for row in rows],
        ),
        Section(
            "certificates",
            "Discrete certificates",
            "Trial fields from noise to nearly solved, all schemes: bounds of the same scheme's "
            "converged value.",
            _certificates,
            lambda rows: [_none_broken(row) for row in rows],
        ),
    ]


def _solvers(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_solvers import PEERS, race_stiffness

    plan: list[tuple[tuple[int, ...], float, tuple[str, ...]]] = [
        ((256, 256), 10.0, PEERS),
        ((256, 256), 1000.0, PEERS[:1]),
        ((256, 256), 0.0, PEERS[:1]),
        ((64, 64, 64), 10.0, PEERS[:1]),
        ((32, 32, 32), 1000.0, PEERS[:1]),
        ((32, 32, 32), 0.0, PEERS[:1]),
    ]
    if settings.quick:
        plan = [((32, 32), 10.0, PEERS), ((8, 8, 8), 10.0, PEERS[:1])]
    return [
        row
        for shape, contrast, peers in plan
        for row in race_stiffness(
            shape, contrast, peers=peers, seed=settings.seed, repetitions=settings.repetitions
        )
    ]


SOLVER_BARS = {(256, 10.0, "staggered"): 2.0, (64, 10.0, "staggered"): 8.0, (64, 10.0, "q1"): 3.0}
"""Times the peer's speed by (side, contrast, scheme); elsewhere no slower."""


def _solver_bars(rows: Rows) -> list[Bar]:
    peers = {(tuple(r["shape"]), r["contrast"]): r for r in rows if r["code"] == "muGrid"}
    bars = []
    for row in rows:
        if row["code"] != "mesoforge":
            continue
        shape, contrast, scheme = tuple(row["shape"]), row["contrast"], row["scheme"]
        asked = SOLVER_BARS.get((shape[0], contrast, scheme), 1.0)
        what = f"contrast {contrast:g}" if contrast else "pores"
        name = f"{scheme} : q1 of muGrid, {' x '.join(map(str, shape))}, {what}"
        peer = peers[shape, contrast]
        if peer["cpu_seconds"] is None or row["cpu_seconds"] is None:
            note = peer["note"] or row["note"]
            bars.append(Bar(name, f"at least {asked:g} x", f"muGrid {note}", None))
            continue
        ratio = peer["cpu_seconds"] / row["cpu_seconds"]
        measured = (
            f"{ratio:.1f} x ({row['cpu_seconds']:.3g} s, {row['iterations']} iterations, against "
            f"{peer['cpu_seconds']:.3g} s, {peer['iterations']})"
        )
        bars.append(Bar(name, f"at least {asked:g} x", measured, ratio >= asked))
    return bars


def _contrast(settings: BenchSettings) -> Sequence[Any]:
    shapes = [(64, 64)] if settings.quick else [(256, 256), (64, 64, 64)]
    rows = [
        race_contrast(shape, contrast, seed=settings.seed)
        for shape in shapes
        for contrast in (0.0, 1e4)
    ]
    q1 = [race_contrast(shapes[0], c, scheme="q1", seed=settings.seed) for c in (0.0, 1e4)]
    return rows + q1


def _many_cells(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_solvers import race_many_cells

    cells, side = (4, 32) if settings.quick else (256, 64)
    return [race_many_cells(cells, side=side, seed=settings.seed, repetitions=settings.repetitions)]


def _many_cells_bars(rows: Rows) -> list[Bar]:
    bars = []
    for row in rows:
        minutes = row["cpu_seconds"] / 60
        measured = (
            f"{minutes:.2f} CPU min ({row['ms_per_load_case']:.2f} ms per load case; fields within "
            f"{row['field_error']:.1e}; {row['cells']} cells measured)"
        )
        name = f"10,000 cells of {row['side']}^2, 3 load cases"
        bars.append(Bar(name, "at most 5 CPU min", measured, minutes <= 5.0))
    return bars


def _correlation(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_statistics import race_correlation

    sizes = {"images": 8, "side": 32, "volume": 24} if settings.quick else {}
    return race_correlation(**sizes, repetitions=settings.repetitions, seed=settings.seed)


def _faster(row: dict[str, Any], asked: float) -> Bar:
    """Return the bar of a contest: so many times the peer's speed."""
    name = f"{row['work']}, speed of {row['peer']}"
    if row["peer_seconds"] is None:
        return Bar(name, f"at least {asked:g} x", f"{row['peer']} is not installed", None)
    ratio = row["peer_seconds"] / row["seconds"]
    times = f"{1e3 * row['seconds']:.3g} against {1e3 * row['peer_seconds']:.3g} ms"
    return Bar(name, f"at least {asked:g} x", f"{ratio:.1f} x ({times})", ratio >= asked)


def _cahn_hilliard(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_statistics import race_cahn_hilliard

    side, steps = (32, 4) if settings.quick else (256, 100)
    return race_cahn_hilliard(
        side=side, steps=steps, repetitions=settings.repetitions, seed=settings.seed
    )


def _cahn_hilliard_bars(rows: Rows) -> list[Bar]:
    # The bar is on a step of the peer's own order in the layout of a 2-D field.
    bars = [_faster(row, 10.0) for row in rows]
    return bars[:1] + [Bar(b.name, "stated", b.measured, None) for b in bars[1:]]


def _closed_forms(settings: BenchSettings) -> Sequence[Any]:
    from studies.closed_forms import closed_forms, scheme_errors

    largest = 64 if settings.quick else None
    cases = closed_forms()[:3] if settings.quick else closed_forms()
    return [row for case in cases for row in scheme_errors(case, largest=largest)]


CLOSED_FORM_BARS = {
    # From the house's table of reference values: (case, scheme, side) -> largest |error|.
    ("checkerboard", "rotated", 32): 5.1e-3,
    ("checkerboard", "rotated", 512): 7e-5,
    ("square inclusions", "rotated", 64): 1.7e-6,
    ("square inclusions", "rotated", 256): 3e-8,
    ("square inclusions", "q1", 256): 6.4e-5,
    ("square inclusions", "staggered", 256): 1.5e-4,
    ("disc array", "staggered", 128): 3.1e-4,
    ("disc array", "rotated", 512): 3.6e-4,
    ("sphere array", "staggered", 64): 2.3e-4,
    ("sphere array", "rotated", 64): 2.9e-3,
    ("sphere array", "q1", 64): 6.0e-3,
}


def _closed_form_bars(rows: Rows) -> list[Bar]:
    bars = []
    for row in rows:
        asked = CLOSED_FORM_BARS.get((row["case"], row["scheme"], row["side"]))
        if asked is not None:
            name = f"{row['case']} ({row['source']}), {row['scheme']}, n = {row['side']}"
            met = abs(row["error"]) <= asked
            bars.append(Bar(name, f"error at most {asked:g}", f"{row['error']:+.2g}", met))
    return bars


def _processes(settings: BenchSettings) -> Sequence[Any]:
    return simulation_costs(quick=settings.quick, seed=settings.seed)


def _process_bars(rows: Rows) -> list[Bar]:
    bars = []
    for row in rows:
        name = f"{row['process']}, {' x '.join(map(str, row['shape']))}"
        shares = ", ".join(f"{share:.3f}" for share in row["fractions"])
        measured = f"{row['cpu_seconds']:.3g} CPU s, fractions {shares}"
        bars.append(Bar(name, "stated", measured, None))
    return bars


def _coarsening(settings: BenchSettings) -> Sequence[Any]:
    from studies.growth_laws import growth_laws

    return growth_laws(quick=settings.quick, seed=settings.seed)


def _coarsening_bars(rows: Rows) -> list[Bar]:
    return [
        Bar(
            row["law"],
            f"{row['exact']:.3g} +- {row['tolerance']:g}",
            f"{row['measured']:.3f}",
            abs(row["measured"] - row["exact"]) <= row["tolerance"],
        )
        for row in rows
    ]


def _widths(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_brackets import bracket_widths

    if settings.quick:
        return bracket_widths(side=32, correlation_length=4.0, n_cells=1, seed=settings.seed)
    flat = bracket_widths(side=128, dim=2, correlation_length=12.0, seed=settings.seed)
    deep = bracket_widths(
        side=64, dim=3, correlation_length=6.0, contrasts=(10.0,), n_cells=1, seed=settings.seed
    )
    return [*flat, *deep]


def _width_bars(rows: Rows) -> list[Bar]:
    bars = []
    for row in rows:
        asked = 0.06 if "^3" in row["name"] else 0.07 if "contrast 100," in row["name"] else 0.02
        mean, worst = 100 * row["first"], 100 * row["first_worst"]
        measured = f"{mean:.2f} % (worst of {row['cells']}: {worst:.2f} %)"
        bars.append(Bar(row["name"], f"at most {100 * asked:g} %", measured, row["first"] <= asked))
    return bars


def _bracket_cost(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_brackets import bracket_cost

    sizes: dict[str, Any] = {"side": 32, "correlation_length": 4.0} if settings.quick else {}
    return bracket_cost(**sizes, repetitions=settings.repetitions, seed=settings.seed)


def _cost_bars(rows: Rows) -> list[Bar]:
    bars = []
    for row in rows:
        solves, q1 = row["bracket"] / row["staggered"], row["bracket"] / row["q1"]
        bars.append(
            Bar(
                row["name"],
                "at most 2.2 solves",
                f"{solves:.2f} staggered solves, {q1:.2f} q1 solves",
                solves <= 2.2,
            )
        )
    return bars


def _containment(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_brackets import bracket_containment

    cells = min(settings.bracket_cells, 20) if settings.quick else settings.bracket_cells
    return bracket_containment(cells, seed=settings.seed)


def _certificates(settings: BenchSettings) -> Sequence[Any]:
    from studies.race_brackets import certificate_violations

    cells = min(settings.certificate_cells, 40) if settings.quick else settings.certificate_cells
    return certificate_violations(cells, seed=settings.seed)


def _none_broken(row: dict[str, Any]) -> Bar:
    measured = f"{row['violations']} of {row['cells']}, worst margin {row['worst']:+.1e}"
    return Bar(f"cells outside: {row['name']}", "0", measured, row["violations"] == 0)
