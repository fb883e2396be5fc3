"""Pictures of runs: titles, raw pictures beside the readable ones, and those of several models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxgen import pictures, runs
from jaxgen.pictures import plots
from jaxgen.runs.record import title
from tests.support import tiny

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize(
    ("what", "epoch", "wanted"),
    [
        ("", None, "vae_mnist · folder:cats"),
        ("samples", None, "vae_mnist · folder:cats: samples"),
        ("samples", 0, "vae_mnist · folder:cats · untrained: samples"),
        ("", 12, "vae_mnist · folder:cats · epoch 12"),
    ],
)
def test_titles_name_experiment_data_and_epoch(what: str, epoch: int | None, wanted: str) -> None:
    content = {"experiment": "experiments.vae_mnist", "data": {"name": "folder:cats"}}
    assert title(content, what, epoch) == wanted


def test_a_title_without_data_names_the_experiment() -> None:
    content = {"experiment": "experiments.vae_mnist", "data": {}}
    assert title(content, "loss", None) == "vae_mnist: loss"


def train(folder: Path, **options: Any) -> list[str]:
    """Train for an epoch with pictures of all kinds.

    Returns:
        The files of the epoch.
    """
    config = tiny.Config(out=folder, epochs=1, **options)
    with runs.start(config, tiny.points(), tiny.Mean()) as run:

        def draw(epoch: int, variables: Any) -> None:
            grid = pictures.grid(variables["params"]["mean"][None], 1)
            run.picture("mean", pictures.captioned(grid, run.title("", epoch)), raw=grid)
            run.curves("loss", ["loss"], "error")

        run.fit(tiny.recipe(config), [(1, draw)])
    place = folder / "epochs" / "001"
    return sorted(str(path.relative_to(place)) for path in place.rglob("*.png"))


def test_raw_pictures_stand_beside_readable_ones(tmp_path: Path) -> None:
    assert train(tmp_path / "run") == ["loss.png", "mean.png", "raw/mean.png"]
    with (
        Image.open(tmp_path / "run/epochs/001/raw/mean.png") as raw,
        Image.open(tmp_path / "run/epochs/001/mean.png") as mean,
    ):
        assert raw.size == (10, 10)
        large = np.asarray(raw).repeat(32, 0).repeat(32, 1)
        np.testing.assert_array_equal(np.asarray(mean)[-336:-16, 16:-16], large)
    before_training = {path.name for path in (tmp_path / "run/epochs/000").iterdir()}
    assert before_training == {"mean.png", "raw"}  # there are no curves yet


def test_pictures_of_several_models_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, beside = [], pictures.beside

    def record(named: Any, title: str) -> Image.Image:
        drawn.append(list(named))
        return beside(named, title)

    monkeypatch.setattr(pictures, "beside", record)
    curves = []
    monkeypatch.setattr(plots, "_draw_curve", lambda axes, name, values: curves.append(values.shape))
    raw = [f"raw/{number}.mean.png" for number in range(4)]
    assert train(tmp_path / "run", seeds=5) == ["loss.png", "mean.png", *raw]
    assert drawn == [["seed 0", "seed 1", "seed 2", "seed 3"]] * 2  # untrained, and after the epoch
    assert curves == [(5, 1)]  # once for all models
