"""The command in this process, and tiny models that it trained."""

import contextlib
import io
import signal
import sys
from pathlib import Path

import pytest

from studies.command import main

TINY = {
    "generator": [
        "widths=[8,16]",
        "features=32",
        "latent_dim=2",
        "training.steps=60",
        "training.warmup_steps=5",
        "training.ema_steps=10",
    ],
    "gate": [],
    "surrogate": ["modes=8", "width=8", "layers=2", "random_fields=0", "training.steps=30"],
}


def call(*words):
    """Run the command with these words; return exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    argv, before = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["mesoforge", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, before)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def command():
    """The command, run in this process."""
    return call


@pytest.fixture
def mesoforge(monkeypatch, tmp_path):
    """The command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Path:
    """A folder with a small data set and models of 16 x 16 cells, all made by the command."""
    folder = tmp_path_factory.mktemp("workshop")
    simulate = ["simulate", "--points", 24, "--cells-per-point", 2, "--shape", 16, 16]
    assert call(*simulate, "--out", folder / "data")[0] == 0
    for what, values in TINY.items():
        words = ["train", what, "--data", folder / "data", "--out", folder / what]
        code, _, err = call(*words, *(["--set", *values] if values else []))
        assert code == 0, err
    return folder
