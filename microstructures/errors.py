"""The one error family. A message says what was expected, what came, and what to do."""

from collections.abc import Sequence


class MicrostructureError(Exception):
    """Any fault that mesoforge reports on purpose; catch this to catch all of them."""


class DataError(MicrostructureError):
    """Input is not what was asked for: a file, a table, a parameter, a shape, a value."""


class CheckpointError(MicrostructureError):
    """A saved folder (model, dataset, checkpoint, journal) is incomplete, altered or foreign."""


class ConvergenceError(MicrostructureError):
    """A solver or a training run did not reach its tolerance, or left the finite numbers.

    `history`, where a solver gives it, is the largest residual over the one asked for, as
    iterations went on.
    """

    def __init__(self, message: str, *, history: Sequence[float] = ()) -> None:
        super().__init__(message)
        self.history = tuple(history)
