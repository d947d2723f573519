import time

import pytest
from pydantic import BaseModel, ConfigDict, Field

from microstructures import DataError, load_settings


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    low: float = Field(0.0, ge=0)


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    crop: int = Field(gt=0)
    size_um: float = 1.0
    name: str = "x"
    parts: tuple[Inner, ...] = ()


def load(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(path, Outer)


def test_plain_settings_load(tmp_path):
    settings = load(tmp_path, "\ufeffcrop: 32  # voxels\nname: é\nparts: [{low: 1e-3}, {}]\n")
    assert settings == Outer(crop=32, name="é", parts=(Inner(low=1e-3), Inner()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crop: 0", "crop: input should be greater than 0, got 0"),
        ("crop: many", "crop: .* got 'many'"),
        ("crop: 3.5", "crop"),
        ("crop: 1\nsize_um: .nan", "size_um"),
        ("crop: 1\nsize_um: .inf", "size_um"),
        ("crop: 1\ncrpo: 2", "unknown setting crpo; known there: crop, size_um"),
        ("name: x", "the setting crop is missing"),
        ("crop: 1\nparts: [{low: -1}]", r"parts\.0\.low"),
        ("crop: 0\nname: 3", r"and 1 more"),
        ("", "expected settings"),
        ("- 1", "expected settings"),
        ("crop: [1", "line"),
        ("crop: 1\ncrop: 2", "line 2.*'crop' is given twice"),
        ("crop: 1\nparts: [{low: 1, low: 2}]", "given twice"),
        ("crop: !!python/object/apply:os.system ['touch hacked']", "plain YAML"),
        ("crop: 1\nname: 2020-13-45", "plain YAML|name"),
        ("? [a]\n: 1", "plain YAML|setting"),
        ("? {a: 1}\n: 1", "plain YAML"),
        (b"crop: \xff", "UTF-8"),
        ("crop: 1\0", "plain YAML"),
        ("crop: " + "[" * 5000 + "]" * 5000, "deeper"),
        ("crop: " + "9" * 5000, "plain YAML"),
        ("a: &a 1\nb: *a", "alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ncrop: *c", "alias"),
        ("crop: 1\nname: " + "x" * 2**20, "1 MB"),
    ],
)
def test_hostile_or_wrong_settings_are_one_sentence(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path, text)
    assert time.process_time() - start < 1
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "hacked").exists()


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(DataError, match="expected a settings file"):
            load_settings(path, Outer)
