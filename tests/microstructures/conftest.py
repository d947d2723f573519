"""Faults to inject: death by kill -9 at each step of a write, and a full disk."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable

import pytest

STEPS = ("open", "fsync", "replace", "link", "mkdir")


def _in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return 0, 1 after an exception, or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def kill_at_each_step():
    """Return a function that runs `work` again and again, killed at its 1st, 2nd, ... step.

    Steps are the file system calls of a write. After each death `check(step)` is called. Returns
    the number of deaths, the last run being the first that came through.
    """

    def run(work: Callable[[], object], check: Callable[[int], object]) -> int:
        for step in range(1, 10_000):
            code = _in_child(lambda step=step: _doomed(work, step))
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                return step - 1
            check(step)
        raise AssertionError("the work never came through")

    return run


def _doomed(work: Callable[[], object], last: int) -> None:
    taken = 0
    for name in STEPS:
        true_call = getattr(os, name)

        def counted(*arguments, true_call=true_call, **options):
            nonlocal taken
            taken += 1
            if taken == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return true_call(*arguments, **options)

        setattr(os, name, counted)
    work()


@pytest.fixture
def on_full_disk():
    """Return a function that runs `work` where no file may grow beyond `room` bytes."""

    def run(work: Callable[[], object], *, room: int) -> int:
        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            work()

        return _in_child(limited)

    return run
