"""The ask/tell study: every event goes to the journal, the state is the fold over its events."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microstructures import CheckpointError, DataError, MicrostructureError
from optimize.design_space import DesignSpace
from optimize.goals import Bound, Goal, Goals
from optimize.journal import Event, Journal
from optimize.ledger import Ledger, plain_values
from optimize.sampling import next_points
from optimize.trial import Trial, Value

FORMAT = 1
# Sobol points before the first model: twice the dimension, but no more than this.
_INITIAL_MAX = 12

Values = Mapping[str, Value | int]


class Study:
    """A constrained search that asks for trials and is told their values.

    Args:
        space: The design space.
        objectives: Outcome -> "maximize", "minimize" or a target number. Several targets are
            joined to one weighted relative miss; several extremes have a Pareto front.
        constraints: Outcome -> (low, high), None leaving a side open.
        folder: Where the journal is kept; a study that stands there already is gone on with.
            None keeps the study in memory.
        seed: Of everything that is drawn.
        weights: Target outcome -> weight of its squared relative miss, 1 where not given.
        tolerance: Largest relative width of a guaranteed bracket that counts as confirmed.
        initial: Quasi-random trials before the model takes over; None is min(2 dim, 12).

    Raises:
        DataError: A setting does not fit, the folder holds a study with other settings, is in
            use by another process, or cannot be written.
        CheckpointError: The journal in the folder is damaged.

    >>> from microstructures import Parameter, ProcessSpace
    >>> from optimize import DesignSpace, Estimate, Study
    >>> space = DesignSpace(ProcessSpace([Parameter("time_h", "h", 1.0, 100.0, "log")]))
    >>> study = Study(space, {"c11_gpa": 180.0}, {"gate": (None, 1.0)}, seed=1)
    >>> (trial,) = study.ask()
    >>> study.tell(trial, {"c11_gpa": 179.0, "gate": Estimate(0.5, 0.5, 0.5, "discrete")})
    >>> study.best().values["c11_gpa"]
    179.0
    """

    def __init__(
        self,
        space: DesignSpace,
        objectives: Mapping[str, Goal],
        constraints: Mapping[str, Sequence[Bound]] | None = None,
        *,
        folder: str | Path | None = None,
        seed: int = 0,
        weights: Mapping[str, float | int] | None = None,
        tolerance: float = 0.01,
        initial: int | None = None,
    ) -> None:
        goals = Goals(objectives, constraints or {}, weights or {}, tolerance)
        initial = min(2 * space.dim, _INITIAL_MAX) if initial is None else initial
        if initial < 1:
            raise DataError(f"expected at least one initial trial, got {initial}")
        self._set(space, goals, int(seed), initial)
        if folder is not None:
            header = self._header()
            journal = Journal(folder, header=header)
            _require_same(header, journal.events[0])
            self._resume(journal)

    @classmethod
    def load(cls, folder: str | Path) -> "Study":
        """Open the study in a folder from its journal alone.

        Raises:
            CheckpointError: No study there, or its journal is damaged.
            DataError: The study is in use by another process.
        """
        study = cls.__new__(cls)
        study._resume(Journal(folder))
        return study

    def ask(self, n: int = 1) -> list[Trial]:
        """Return `n` new pending trials.

        Quasi-random until `initial` trials run or are told, then the maxima of the acquisition;
        quasi-random again, with a warning, where the told values make no model. What is drawn
        derives from the seed and the number of events alone, so a study loaded again asks the
        same. Trials asked before and never told are in `pending()`.
        """
        if n < 1:
            raise DataError(f"expected to be asked for at least one trial, got {n}")
        first = len(self._ledger.trials)
        points = next_points(self._ledger, n, seed=self.seed, initial=self.initial)
        trials = [
            {"number": first + k, "parameters": self.space.from_unit(u)}
            for k, u in enumerate(points)
        ]
        self._record({"event": "ask", "trials": trials})
        return deepcopy(self._ledger.trials[first:])

    def tell(self, trial: Trial | int, values: Values) -> None:
        """Record the values of a trial: numbers (confirmed) or estimates, one per outcome.

        A trial told with an estimate that is not confirmed may be told again.

        Raises:
            DataError: An outcome is unknown, missing or not finite, or the trial is not open.
        """
        told = self._ledger.find(trial)
        if told.status != "told" or self.goals.confirmed(told.values):
            told = self._ledger.find_pending(trial)
        checked = plain_values(self.goals.check(values))
        self._record({"event": "tell", "number": told.number, "values": checked})

    def attach(self, parameters: Mapping[str, Any], values: Values) -> Trial:
        """Record a point that was evaluated without being asked, and return its trial.

        Raises:
            DataError: As `tell`, or the parameters do not lie in the space.
        """
        event = {
            "event": "attach",
            "number": len(self._ledger.trials),
            "parameters": self.space.canonical(parameters),
            "values": plain_values(self.goals.check(values)),
        }
        self._record(event)
        return deepcopy(self._ledger.trials[-1])

    def fail(self, trial: Trial | int, reason: str) -> None:
        """Record that a trial's evaluation failed; later asks keep away from its point."""
        number = self._ledger.find_pending(trial).number
        self._record({"event": "fail", "number": number, "reason": str(reason)})

    def abandon(self, trial: Trial | int) -> None:
        """Record that a trial will not be evaluated; its point may be asked again."""
        self._record({"event": "abandon", "number": self._ledger.find_pending(trial).number})

    @property
    def trials(self) -> list[Trial]:
        """All trials by number."""
        return deepcopy(self._ledger.trials)

    def pending(self) -> list[Trial]:
        """Return the trials asked and neither told, failed nor abandoned."""
        return deepcopy(self._ledger.with_status("pending"))

    def merit(self, trial: Trial | int) -> float | None:
        """Return what `best` ranks by, the larger the better: -miss, or the value or its negative.

        None unless the trial's values are confirmed and satisfy every constraint.

        Raises:
            DataError: Several extremes are asked for; see `pareto`.
        """
        self._require_one_maximand()
        values = self._ledger.find(trial).values
        return self.goals.merits(values)[0] if values and self.goals.feasible(values) else None

    def best(self) -> Trial | None:
        """Return the best confirmed feasible trial (the earliest of equals), or None.

        Raises:
            DataError: Several extremes are asked for; see `pareto`.
        """
        self._require_one_maximand()
        proven = self._ledger.proven()
        return deepcopy(max(proven, key=lambda t: self.goals.merits(t.values)[0], default=None))

    def pareto(self) -> list[Trial]:
        """Return the confirmed feasible trials that no other one dominates, by number."""
        proven = self._ledger.proven()
        if not proven:
            return []
        merits = [self.goals.merits(t.values) for t in proven]
        front = _non_dominated(torch.tensor(merits, dtype=torch.float64)).tolist()
        return deepcopy([t for t, keep in zip(proven, front, strict=True) if keep])

    def close(self) -> None:
        """Give the folder free for another process; the study takes no more events."""
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _set(self, space: DesignSpace, goals: Goals, seed: int, initial: int) -> None:
        self.space, self.goals, self.seed, self.initial = space, goals, seed, initial
        self._ledger = Ledger(space, goals)
        self._journal: Journal | None = None

    def _header(self) -> Event:
        return {
            "event": "study",
            "format": FORMAT,
            "space": self.space.to_json(),
            "goals": self.goals.to_json(),
            "seed": self.seed,
            "initial": self.initial,
        }

    def _resume(self, journal: Journal) -> None:
        """Become the study of the journal: its header, then the fold over its events."""
        place = 1
        try:
            header = journal.events[0]
            if header["event"] != "study" or header["format"] != FORMAT:
                raise ValueError(f"expected the header of a study of format {FORMAT}")
            space = DesignSpace.from_json(header["space"])
            self._set(space, Goals(**header["goals"]), header["seed"], header["initial"])
            for event in journal.events[1:]:
                place += 1
                self._ledger.apply(event)
        except (KeyError, IndexError, TypeError, ValueError, MicrostructureError) as error:
            raise CheckpointError(
                f"line {place} of {journal.path} is not an event of this version's studies "
                f"({error!r}); restore the journal from a copy, or use the version that wrote it"
            ) from error
        self._journal = journal

    def _record(self, event: Event) -> None:
        # The journal first: an event that could not be written did not happen.
        if self._journal is not None:
            self._journal.append(event)
        self._ledger.apply(event)

    def _require_one_maximand(self) -> None:
        if self.goals.n_maximands > 1:
            raise DataError(
                f"expected one objective or targets only, {', '.join(self.goals.objectives)} "
                "compete and have no single best; call pareto()"
            )


def _require_same(header: Event, found: Event) -> None:
    wanted = json.loads(json.dumps(header))  # as a journal gives it back: tuples are lists there
    other = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if other:
        raise DataError(
            f"expected the study in the folder to have the settings given, it has another "
            f"{', '.join(other)}; use Study.load to go on with it or choose another folder"
        )


def _non_dominated(y: Float[Tensor, "point maximand"]) -> Bool[Tensor, "point"]:
    """Return which points no other one equals or beats everywhere and beats somewhere."""
    no_worse = (y[:, None] >= y[None]).all(-1)
    better = (y[:, None] > y[None]).any(-1)
    return ~(no_worse & better).any(0)
