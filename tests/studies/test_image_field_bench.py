"""The chapter on stress straight from the image: its measures against fields that are known."""

import pytest
import torch
import torch.nn.functional as F

from physics import IsotropicElastic, solve_elasticity
from studies.field_families import Family
from studies.image_field_race import (
    NET,
    TRAINED,
    TWIN,
    cheapest_solver,
    measured,
    stressing_loads,
)
from studies.run_folder import open_run
from studies.settings import SurrogateBenchSettings
from studies.surrogate_image_field import image_field_chapter
from surrogates.image_cells import padded
from surrogates.image_fields import ImageFieldPrediction, ImageFieldSurrogate


class Answer:
    """The solver's own fields in a net's place, as they are or averaged over 3 x 3 voxels."""

    def __init__(self, *, blurred: bool) -> None:
        self.blurred = blurred

    def predict(self, phases, materials) -> ImageFieldPrediction:
        stress = solve_elasticity(phases, materials, tolerance=1e-6).stress
        if self.blurred:
            wide = F.pad(stress.flatten(0, 1), [1] * 4, mode="circular")
            stress = F.avg_pool2d(wide, 3, 1).view_as(stress)
        still = torch.zeros(1, 3)
        return ImageFieldPrediction(stress.float(), stress[:, :, 0].float(), still, still[:, 0])


@pytest.mark.parametrize("kind", ["cracked", "gripped"])
def test_the_solver_itself_is_right_and_a_blur_is_blurred(kind):
    torch.manual_seed(1)
    cell = (torch.rand(1, 8, 8) < 0.5).to(torch.uint8)
    family = Family("squares", False, cell.repeat_interleave(4, 1).repeat_interleave(4, 2))
    models = {NET: Answer(blurred=False), TWIN: Answer(blurred=True)}
    stage = measured(family, kind, TRAINED, models, 0)  # pyright: ignore[reportArgumentType]
    right, blur = ({m: stage.arrays[f"{n}.{m}"][0] for m in MEASURES} for n in (NET, TWIN))
    assert max(right["l2"], right["mape"], abs(right["p99"])) < 1e-3
    assert right["sharpness"] == pytest.approx(1, abs=1e-3)
    assert right["fine"] == pytest.approx(1, abs=1e-3)
    assert blur["l2"] > 0.05
    assert blur["p99"] < -0.02
    assert blur["fine"] < 0.7
    assert blur["sharpness"] < 0.8
    assert stage.arrays["error, with critic"].max() < 0.01
    assert stage.arrays["error, L1 only"].max() > 0.1


MEASURES = ("l2", "mape", "p99", "sharpness", "fine")


def test_only_loads_that_stress_a_bar_are_raced():
    solid, pore = (IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, 0.0))
    bar = padded(torch.zeros(16, 12, dtype=torch.long), axis=1, width=4, label=1)[None]
    assert stressing_loads(bar, [solid, pore]).tolist() == [[[1.0, 0.0, 0.0]]]
    assert len(stressing_loads(0 * bar, [solid, pore])[0]) == 3


def test_the_cheapest_solver_is_as_exact_as_the_net():
    rivals = {
        "net": {"ms": 2.0, "error": 0.2},
        "0.5": {"ms": 0.5, "error": 0.3},
        "0.1": {"ms": 1.0, "error": 0.15},
        "0.01": {"ms": 3.0, "error": 0.01},
    }
    assert cheapest_solver(rivals) == "0.1"
    assert cheapest_solver(rivals | {"net": {"ms": 2.0, "error": 0.001}}) is None


def test_the_command_trains_one_and_says_what_does_not_fit(mesoforge, workshop, tmp_path):
    words = [
        "train",
        "image-field",
        "--data",
        workshop / "data",
        "--out",
        tmp_path / "run",
        "--set",
    ]
    tiny = ["widths=[4,4]", "critic_widths=[4,4]", "features=4", "random_fields=0"]
    steps = ["training.steps=3", "training.batch_size=2", "training.warmup_steps=1"]
    code, _, err = mesoforge(*words, *tiny, *steps)
    assert code == 0, err
    assert ImageFieldSurrogate.from_pretrained(tmp_path / "run/model").net.dim == 2
    code, _, err = mesoforge(*words, *tiny, *steps, "gripped_share=0.9")
    assert code == 2
    assert "add up to" in err


def test_the_chapter_at_toy_size(tmp_path):
    settings = SurrogateBenchSettings(quick=True)
    with open_run(tmp_path / "run", settings, verb="bench surrogates") as run:
        chapter = image_field_chapter(settings, run)
        again = image_field_chapter(settings, run)
    assert again.to_json() == chapter.to_json()
    costs = chapter.facts["costs"]
    for kind in ("periodic", "cracked", "free sides", "gripped"):
        # A tighter tolerance is nearer the solution, for more work.
        assert costs[kind]["0.1"]["error"] < costs[kind]["0.5"]["error"]
    assert "Does the critic help?" in chapter.about
    (picture,) = chapter.figures().values()
    assert picture.startswith("data:image/png")
