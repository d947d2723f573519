"""Settings: one declaration behind YAML, flags and saved runs."""

from pathlib import Path

import pytest
import yaml

from microstructures import DataError
from studies.example_settings import settings_files, write_settings
from studies.settings import DesignSettings, SimulateSettings, resolve_settings
from studies.settings_text import commented_yaml, settings_yaml
from studies.training import nested

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_init_writes_the_defaults_of_every_verb(tmp_path):
    for path in write_settings(tmp_path):
        model = settings_files()[path.name]
        assert resolve_settings(model, path, None) == model()


def test_init_refuses_to_overwrite(tmp_path):
    write_settings(tmp_path)
    with pytest.raises(DataError, match=r"found demo\.yaml"):
        write_settings(tmp_path)


def test_comments_carry_unit_and_bounds():
    text = commented_yaml(DesignSettings)
    assert "(GPa, above 0)" in text
    assert "at least 2, at most 50" in text


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "design.yaml"
    file.write_text("seed: 3\nevaluations: 8\n")
    resolved = resolve_settings(DesignSettings, file, DesignSettings(seed=5))
    assert (resolved.seed, resolved.evaluations, resolved.batch) == (5, 8, 4)


def test_nested_values_reach_nested_settings():
    assert nested({"training.steps": 5, "widths": 3}) == {"training": {"steps": 5}, "widths": 3}
    with pytest.raises(DataError, match="group of settings"):
        nested({"training": 1, "training.steps": 5})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shape: [64, 63.5]", "shape"),
        ("target_c11_gpa: .nan", "target_c11_gpa"),
        ("poisson_ratio: [0.3, 0.5]", "poisson_ratio"),
        ("evaluation: 8", "evaluation"),
        ("seed: 1\nseed: 2", "twice"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        resolve_settings(DesignSettings, file, None)


def test_saved_settings_read_back():
    settings = SimulateSettings(ranges={"composition": [0.4, 0.5]}, shape=(16, 16, 16))
    assert SimulateSettings(**yaml.safe_load(settings_yaml(settings))) == settings


def test_every_config_fits_its_verb():
    files = sorted(CONFIGS.glob("*.yaml"))
    assert files
    for file in files:
        # A config's name holds its verb: design-stiff.yaml, train-elastic-2d-fno.yaml.
        words = file.stem.split("-")
        models = [
            m for name, m in settings_files().items() if name.split(".")[0].split("-")[0] in words
        ]
        assert any(_fits(model, file) for model in models), file


def _fits(model, file):
    try:
        return resolve_settings(model, file, None) is not None
    except DataError:
        return False
