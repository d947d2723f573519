"""Tables and pictures of learning curves: labels saved, errors, and what was labelled.

Curves are facts: `sizes`, `groups` and their `shares` of the pool, `errors` by rule (seed, size,
group), `labelled` by rule (seed, group).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.bench_table import Cell, Row, Table, plain_row
from studies.figures import INK, drawing, plain_log_ticks
from studies.learning_curves import OURS, RANDOM, RULES, labels_needed

WORST = "the worst group"
ASKED = 0.5
LEARNT = 0.9  # of the error after the first cells: at most this counts as learning at random
COLOURS = ("#9a9a9a", "#1f5f8b", "#7fb2d6", "#c0392b", "#b58b00")


def _averages(facts: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Return errors `(seed, size)` of every rule, by how the groups are weighed."""
    shares = np.array(facts["shares"])
    errors = {rule: np.array(found) for rule, found in facts["errors"].items()}
    return {
        "like the pool": {rule: e @ shares for rule, e in errors.items()},
        "all groups alike": {rule: e.mean(2) for rule, e in errors.items()},
        WORST: {rule: e.max(2) for rule, e in errors.items()},
    }


def ratio_table(curves: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return labels for the error that random picking has at its last and at half as many.

    Judged is the rule that the package picks by, at all labels; where random picking lowered the
    error of the first cells by less than a tenth, nothing is.
    """
    rows = []
    for name, facts in curves.items():
        sizes = facts["sizes"]
        half = min(sizes, key=lambda n: abs(n - sizes[-1] / 2))
        for weighing, errors in _averages(facts).items():
            for size in (sizes[-1],) if weighing == WORST else (sizes[-1], half):
                curve = errors[RANDOM].mean(0)
                target = float(curve[sizes.index(size)])
                # Labels for an error that the first cells had already are labels for nothing.
                learnt = target <= LEARNT * curve[0]
                judged = size == sizes[-1] and weighing != WORST and learnt
                cells = tuple(
                    _ratio(errors[rule], sizes, target, size, judged and rule == OURS)
                    if rule in errors and learnt
                    else Cell("random learnt nothing" if rule in errors else "-")
                    for rule in RULES
                )
                title = f"{name}, {weighing}: random's {100 * target:.2f} % at {size} labels"
                rows.append(Row(title, cells, asked="at most 0.5" if judged else ""))
    return Table(tuple(RULES), tuple(rows))


def _ratio(
    errors: np.ndarray, sizes: Sequence[int], target: float, size: int, judged: bool
) -> Cell:
    mean = labels_needed(errors.mean(0), sizes, target) / size
    by_seed = [labels_needed(curve, sizes, target) / size for curve in errors]
    text = f"{_share(mean)} ({_share(min(by_seed))} to {_share(max(by_seed))})"
    return Cell(text, bool(mean <= ASKED) if judged else None)


def _share(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "never"


def error_table(facts: Mapping[str, Any]) -> Table:
    errors = _averages(facts)["all groups alike"]
    rows = []
    for k, size in enumerate(facts["sizes"]):
        found = [100 * errors[rule][:, k] for rule in errors]
        texts = [f"{e.mean():.2f} ({e.min():.2f} to {e.max():.2f})" for e in found]
        rows.append(plain_row(f"{size} labels", texts))
    return Table(tuple(errors), tuple(rows))


def group_table(facts: Mapping[str, Any]) -> Table:
    rows = []
    for k, (group, share) in enumerate(zip(facts["groups"], facts["shares"], strict=True)):
        texts = []
        for rule, errors in facts["errors"].items():
            labelled = np.array(facts["labelled"][rule], dtype=float)
            part = 100 * (labelled / labelled.sum(1, keepdims=True)).mean(0)[k]
            texts.append(f"{part:.0f}; {100 * np.array(errors)[:, -1, k].mean():.2f}")
        rows.append(plain_row(f"{group} ({100 * share:.0f} % of the pool)", texts))
    return Table(tuple(facts["errors"]), tuple(rows))


def curves_figure(curves: Mapping[str, Mapping[str, Any]]) -> str:
    with drawing(len(curves), width=3.3 * len(curves), height=3.0) as made:
        for axis, (name, facts) in zip(made.axes[0], curves.items(), strict=True):
            averages = _averages(facts)["all groups alike"]
            for colour, (rule, errors) in zip(COLOURS, averages.items(), strict=False):
                percent = 100 * errors
                axis.plot(facts["sizes"], percent.mean(0), color=colour, label=rule)
                axis.fill_between(
                    facts["sizes"], percent.min(0), percent.max(0), color=colour, alpha=0.15, lw=0
                )
            axis.set_xscale("log")
            axis.set_yscale("log")
            for one in (axis.xaxis, axis.yaxis):
                plain_log_ticks(one)
            axis.set_title(name, color=INK)
            axis.set_xlabel("labels")
            axis.set_ylabel("error, all groups alike (%)")
        made.axes[0, 0].legend()
        return made.data_uri(dpi=110)
