"""The state of a study: the fold over its events, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from microstructures import DataError
from optimize.design_space import DesignSpace
from optimize.goals import Goals
from optimize.trial import Status, Trial, Value, value_from_json, value_to_json

Event = dict[str, Any]


class Ledger:
    """The trials of a study, made from its events one after the other.

    Args:
        space: The design space, which parameters must lie in.
        goals: The goals, which values must fit.
    """

    def __init__(self, space: DesignSpace, goals: Goals) -> None:
        self.space, self.goals = space, goals
        self.trials: list[Trial] = []
        self.n_events = 0

    def apply(self, event: Event) -> None:
        """Take one event: "ask", "attach", "tell", "fail" or "abandon".

        Raises:
            KeyError, IndexError, TypeError, ValueError, DataError: It is none of a study's.
        """
        match event["event"]:
            case "ask":
                for entry in event["trials"]:
                    self._add(entry)
            case "attach":
                self._add(event)
                self._change(event, "told")
            case "tell":
                self._change(event, "told")
            case "fail":
                self._change(event, "failed")
            case "abandon":
                self._change(event, "abandoned")
            case other:
                raise ValueError(f"unknown event {other!r}")
        self.n_events += 1

    def with_status(self, *statuses: Status) -> list[Trial]:
        """Return the trials of these statuses by number."""
        return [t for t in self.trials if t.status in statuses]

    def proven(self) -> list[Trial]:
        """Return the told trials whose values are confirmed and satisfy every constraint."""
        return [t for t in self.with_status("told") if self.goals.feasible(t.values)]

    def find(self, trial: Trial | int) -> Trial:
        """Return the trial as it stands now.

        Raises:
            DataError: The number is not one of this study.
        """
        number = trial.number if isinstance(trial, Trial) else trial
        if not 0 <= number < len(self.trials):
            raise DataError(
                f"expected one of the {len(self.trials)} trials of this study, got number {number}"
            )
        return self.trials[number]

    def find_pending(self, trial: Trial | int) -> Trial:
        """Return the trial as it stands now.

        Raises:
            DataError: The number is not one of this study, or the trial is not pending.
        """
        found = self.find(trial)
        if found.status != "pending":
            raise DataError(
                f"expected a pending trial, trial {found.number} is {found.status}; see pending()"
            )
        return found

    def _add(self, entry: Event) -> None:
        if entry["number"] != len(self.trials):
            raise ValueError(f"trial {entry['number']} out of order")
        parameters = self.space.canonical(entry["parameters"])
        self.trials.append(Trial(entry["number"], parameters, {}))

    def _change(self, event: Event, status: Status) -> None:
        values = {name: value_from_json(v) for name, v in event.get("values", {}).items()}
        self.trials[event["number"]] = replace(
            self.trials[event["number"]],
            status=status,
            values=self.goals.check(values) if status == "told" else {},
            reason=event.get("reason", ""),
        )


def plain_values(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return told values as an event holds them."""
    return {name: value_to_json(value) for name, value in values.items()}
