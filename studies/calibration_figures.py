"""Figures of the surrogates' benchmark: calibration and parity."""

from collections.abc import Mapping, Sequence

import numpy as np

from studies.figures import DESIGN, INK, RIVAL, TARGET, drawing

TINTS = (RIVAL, DESIGN, TARGET)


def calibration_figure(coverage: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return measured against asked coverage, the mean and range over a matrix's entries."""
    with drawing(1, width=3.6, height=3.2) as made:
        axis = made.axes[0, 0]
        axis.plot([0, 100], [0, 100], color=INK, linewidth=0.7)
        for (name, levels), tint in zip(coverage.items(), TINTS, strict=False):
            asked = 100 * np.array([float(level) for level in levels])
            found = 100 * np.array(list(levels.values()))
            spans = [found.mean(1) - found.min(1), found.max(1) - found.mean(1)]
            axis.errorbar(
                asked, found.mean(1), spans, fmt="o-", color=tint, markersize=3, label=name
            )
        axis.fill_between([88, 92], [87, 87], [93, 93], color=TARGET, alpha=0.25, label="the bar")
        axis.set_xlim(40, 100)
        axis.set_ylim(40, 100)
        axis.set_xlabel("confidence asked (%)")
        axis.set_ylabel("test cells inside (%)")
        axis.legend()
        return made.data_uri()


def error_figure(arrays: Mapping[str, np.ndarray]) -> str:
    """Return relative errors of C11, ranked by the width of their intervals."""
    order = np.argsort(arrays["half"] / arrays["actual"])
    error = 100 * (arrays["net"] / arrays["actual"] - 1)[order]
    half = 100 * (arrays["half"] / arrays["actual"])[order]
    with drawing(1, width=6.0, height=2.4) as made:
        axis = made.axes[0, 0]
        rank = np.arange(len(order))
        axis.fill_between(rank, -half, half, color=RIVAL, alpha=0.4, label="90 % interval")
        axis.plot(rank, error, ".", color=DESIGN, markersize=2.5, label="error")
        axis.set_xlabel("test cells, the surest first")
        axis.set_ylabel("C11 (%)")
        axis.legend()
        return made.data_uri()
