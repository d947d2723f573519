"""The study on real maps at toy length: import, train, report on the unseen treatment."""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TOY = ["widths=[8,16]", "features=32", "training.steps=20", "training.precision=no"]


@pytest.mark.slow
def test_real_maps_go_through_import_training_and_report(real_data, command, tmp_path):
    folder = real_data / "uhcs_heat_treatment"
    if not folder.is_dir():
        pytest.skip(f"no UHCS maps in {real_data}")
    data, model, report = tmp_path / "uhcs", tmp_path / "model", tmp_path / "report"
    table, config = folder / "metadata.csv", CONFIGS / "uhcs-import.yaml"
    words = ["import", folder, "--table", table, "--settings", config, "--out", data]
    assert command(*words)[0] == 0
    settings = [word for value in TOY for word in ("--set", value)]
    words = ["train", "generator", "--data", data, "--settings", CONFIGS / "train-uhcs.yaml"]
    code, _, err = command(*words, *settings, "--out", model)
    assert code == 0, err
    unseen = data / "dataset-left-out"
    words = ["report", model, "--against", unseen, "--training", data, "-n", 8]
    code, _, err = command(*words, "--out", report)
    assert code == 0, err
    facts = json.loads((report / "fidelity.json").read_text())
    errors = {metric["name"]: metric for metric in facts["metrics"]}
    assert facts["n_real"] == 351
    assert facts["n_groups"] == 5
    # A net of 20 steps is far from real maps; the floor is the real maps' own affair.
    assert 0.6 < errors["s2"]["floor"] < 1.3
    assert max(metric["ratio"] for metric in facts["metrics"]) > 1
    assert facts["memorisation"]["held_out"] == 351
    assert facts["memorisation"]["against_other_maps"] is False
