"""The rows of a MicroBench table: what is asked of a generator, and what each one shows."""

from collections.abc import Callable, Sequence

from generators.microbench_calibration import Calibration
from generators.microbench_spread import Spread
from studies.generator_table import Column, Metric


def track_metrics(shape: Sequence[int]) -> list[Metric]:
    """Return M1 to M12 with the bars set for cells of this shape."""
    return [
        *_ensemble_metrics(),
        *_property_metrics(),
        *_condition_metrics(),
        *_sample_metrics(),
        *_cost_metrics(shape),
    ]


def error_metric(
    number: str, key: str, title: str, asked: str, reached: Callable[[float], bool] | None = None
) -> Metric:
    """Return the row of an ensemble error, as a share."""
    return Metric(
        f"{number} {title}",
        asked,
        lambda c: _percent(_error(c, key)),
        lambda c: _error(c, key),
        reached,
        lambda c: _percent(floor_of(c, key)),
    )


def ratio_metric(
    number: str, key: str, title: str, asked: str, reached: Callable[[float], bool] | None = None
) -> Metric:
    """Return the row of an error over its floor, with its interval."""

    def ratio(column: Column) -> float | None:
        found = {e.name: e for e in column.score.ensembles}.get(key)
        return None if found is None else found.ratio

    def show(column: Column) -> str:
        found = {e.name: e for e in column.score.ensembles}.get(key)
        if found is None or found.ratio is None:
            return ""
        return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"

    return Metric(f"{number} {title}", asked, show, ratio, reached, lambda c: "1")


def _ensemble_metrics() -> list[Metric]:
    return [
        Metric("M1 fraction, bias", "stated", lambda c: f"{c.score.fraction.bias:+.4f}"),
        Metric(
            "M1 fraction, RMSE",
            "at most 0.003",
            lambda c: f"{c.score.fraction.rmse:.4f}",
            lambda c: c.score.fraction.rmse,
            lambda v: v <= 0.003,
            lambda c: "" if c.score.fraction.floor is None else f"{c.score.fraction.floor:.4f}",
        ),
        error_metric("M2", "s2", "S2", "at most 1 %", lambda v: v <= 0.01),
        ratio_metric("M2", "s2", "S2 over floor", "stated"),
        error_metric("M2", "chi", "chi", "stated"),
        ratio_metric("M2", "chi", "chi over floor", "at most 2", lambda v: v <= 2),
        error_metric("M3", "lineal path", "lineal path", "stated"),
        ratio_metric(
            "M3", "lineal path", "lineal path over floor", "at most 1.5", lambda v: v <= 1.5
        ),
        error_metric("M4", "surface", "surface", "at most 2 %", lambda v: v <= 0.02),
        ratio_metric("M4", "surface", "surface over floor", "stated"),
        ks_metric("M4", "surface", "surface", "stated"),
        error_metric("M4", "euler", "Euler density", "at most 8 %", lambda v: v <= 0.08),
        ratio_metric("M4", "euler", "Euler density over floor", "stated"),
        ks_metric("M4", "euler", "Euler density", "stated"),
    ]


def ks_metric(
    number: str, key: str, title: str, asked: str, reached: Callable[[float], bool] | None = None
) -> Metric:
    """Return the row of a Kolmogorov-Smirnov test: conditions that pass, and mean distance."""

    def passed(column: Column) -> float | None:
        found = {e.name: e for e in column.score.ensembles}.get(key)
        return None if found is None else found.ks_passed

    def show(column: Column) -> str:
        found = {e.name: e for e in column.score.ensembles}.get(key)
        if found is None or found.ks_passed is None:
            return ""
        return f"{100 * found.ks_passed:.0f} % (D {found.ks_distance:.2f})"

    name = f"{number} {title}, KS p > 0.05"
    return Metric(name, asked, show, passed, reached, lambda c: "95 %")


def _property_metrics() -> list[Metric]:
    metrics = []
    for key, title, barred in (("c11", "C11", True), ("conductivity", "k11", False)):
        asked = ("at most 2 %", "at least 80 %") if barred else ("stated", "stated")
        mean = (lambda v: v <= 0.02) if barred else None
        share = (lambda v: v >= 0.8) if barred else None
        metrics.append(error_metric("M5", key, f"{title}, mean", asked[0], mean))
        metrics.append(ks_metric("M5", key, title, asked[1], share))
    return metrics


def _condition_metrics() -> list[Metric]:
    def coverage(column: Column) -> float | None:
        return None if column.score.coverage is None else column.score.coverage.coverage

    def slope(column: Column) -> float | None:
        return None if column.score.slope is None else column.score.slope.slope

    def r_squared(column: Column) -> float | None:
        return None if column.score.r_squared is None else column.score.r_squared.r_squared

    def named(value: float | None, found: Spread | Calibration | None, digits: int = 3) -> str:
        return "" if value is None or found is None else f"{value:.{digits}f} ({found.name})"

    def spread(column: Column) -> float | None:
        return None if column.score.spread is None else column.score.spread.ratio

    return [
        Metric(
            "M6 R² of condition means, worst",
            "at least 0.97",
            lambda c: named(r_squared(c), c.score.r_squared, 4),
            r_squared,
            lambda v: v >= 0.97,
        ),
        Metric(
            "M6 slope, worst",
            "1 ± 0.03",
            lambda c: named(slope(c), c.score.slope),
            slope,
            lambda v: abs(v - 1) <= 0.03,
        ),
        Metric(
            "M6 energy distance, p > 0.05",
            "stated",
            lambda c: f"{100 * c.score.energy_passed:.0f} %",
            floor=lambda c: "95 %",
        ),
        Metric(
            "M7 coverage of the 5 to 95 % band, worst",
            "0.85 to 0.95",
            lambda c: named(coverage(c), c.score.coverage),
            coverage,
            lambda v: 0.85 <= v <= 0.95,
            lambda c: "0.90",
        ),
        Metric(
            "M8 spread, worst",
            "0.85 to 1.15",
            lambda c: named(spread(c), c.score.spread),
            spread,
            lambda v: 0.85 <= v <= 1.15,
            lambda c: "1",
        ),
        Metric("M8 distance between samples", "stated", lambda c: f"{c.score.distance_ratio:.3f}"),
    ]


def _sample_metrics() -> list[Metric]:
    def above(column: Column) -> float | None:
        return None if column.memorisation is None else column.memorisation.share

    def shown(column: Column) -> str:
        found = column.memorisation
        if found is None:
            return ""
        return f"{100 * found.share:.2f} % (highest {found.highest:.3f}, {found.samples})"

    def held_out(column: Column) -> str:
        return column.facts.get("held_out") or ("not measured" if column.is_model else "")

    return [
        Metric("M9 above the held-out 99.9 %", "at most 0.5 %", shown, above, lambda v: v <= 0.005),
        Metric("M10 undecided voxels", "stated", lambda c: _percent(c.number("undecided"))),
        Metric(
            "M10 seam",
            "1 ± 0.05",
            lambda c: "" if c.number("seam") is None else f"{c.number('seam'):.3f}",
            lambda c: c.number("seam"),
            lambda v: abs(v - 1) <= 0.05,
            lambda c: "1",
        ),
        Metric("M11 held-out conditions", "stated", held_out),
    ]


def _cost_metrics(shape: Sequence[int]) -> list[Metric]:
    limit = {(64, 64): 0.1, (64, 64, 64): 2.0}.get(tuple(shape))

    def seconds(column: Column) -> float | None:
        return column.number("cpu_seconds")

    def peak(column: Column) -> str:
        found = column.number("peak_gb")
        return "" if found is None else f"{found:.2f}"

    def weights(column: Column) -> str:
        found = column.number("parameters")
        return "" if found is None else f"{found / 1e6:.2f} million"

    return [
        Metric(
            "M12 CPU s per sample, one thread",
            "stated" if limit is None else f"at most {limit:g}",
            lambda c: "" if seconds(c) is None else f"{seconds(c):.3g}",
            seconds,
            None if limit is None else lambda v: v <= limit,
        ),
        Metric("M12 weights", "stated", weights),
        Metric("M12 peak memory of the process, GB", "stated", peak),
        Metric(
            "M12 training, as its card says", "stated", lambda c: c.facts.get("training_time") or ""
        ),
    ]


def _error(column: Column, key: str) -> float | None:
    found = {e.name: e for e in column.score.ensembles}.get(key)
    return None if found is None else found.error


def floor_of(column: Column, key: str) -> float | None:
    """Return a metric's floor, None where it has none."""
    found = {e.name: e for e in column.score.ensembles}.get(key)
    return found.floor if found is not None and found.floor > 0 else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"
