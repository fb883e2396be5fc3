"""Runs of several models: seeds, several learning rates, averages; and what a run measures and says of them."""

import json

import chex
import numpy as np
import optax
import pytest
from PIL import Image

import jaxgen
from experiments import dcgan_digits, rnn_complete
from jaxgen import pictures, runs
from jaxgen.recipes import with_hyperparams
from jaxgen.runs.models import models_of, spread
from jaxgen.runs.progress import grouped
from jaxgen.training import as_source
from tests.support import tiny

pytestmark = pytest.mark.unoptimized


class Config(tiny.Config):
    learning_rate: runs.Crossed[runs.Positive] = 0.1
    """Learning rate of Adam."""


RATES = (0.1, 0.01)
NOTES = {"is small": lambda metrics: metrics["loss"] < 1}


def recipe(config):
    """The tiny recipe, with an optimiser that may have several learning rates."""
    return tiny.recipe(config, with_hyperparams(optax.adam, learning_rate=config.learning_rate))


def size_of(path):
    with Image.open(path) as image:
        return image.size


def run(folder, draw=lambda run, epoch, variables: None, page=None, **options):
    config = Config(**{"out": folder, "epochs": 2, "seeds": 2} | options)
    with runs.start(config, as_source(tiny.points()), tiny.Mean(), page=page) as this_run:
        drawings = [(1, lambda epoch, variables: draw(this_run, epoch, variables))]
        this_run.fit(
            recipe(this_run.config), drawings, best="loss", notes={"is small": lambda metrics: metrics["loss"] < 1}
        )
        this_run.curves("loss", ["loss"], "error")
    return this_run.outcome


# ---- What trains ----


def test_models_are_all_combinations_of_rates_and_seeds():
    models = models_of(Config(learning_rate=RATES, seeds=3))
    assert models.seeds == (0, 1, 2, 0, 1, 2)
    assert models.hyperparams == {"learning_rate": (0.1, 0.1, 0.1, 0.01, 0.01, 0.01)}
    assert models.labels[0] == "learning rate 0.1, seed 0"
    assert models.labels[5] == "learning rate 0.01, seed 2"
    assert models_of(Config(learning_rate=RATES)).labels == ["learning rate 0.1", "learning rate 0.01"]
    assert not models_of(Config()).are_several


def test_one_learning_rate_is_a_number_and_several_are_a_list():
    assert Config(learning_rate=["0.2"]).stored()["learning_rate"] == 0.2
    assert Config(learning_rate=["0.2", 0.3]).stored()["learning_rate"] == [0.2, 0.3]
    read = Config.read(json.loads(json.dumps(Config(learning_rate=(0.2, 0.3)).stored())), "config.json")
    assert read.learning_rate == (0.2, 0.3)
    for wrong in ((0.1, -1), (), (0.1, "x")):
        with pytest.raises(jaxgen.InputError, match="learning_rate"):
            Config(learning_rate=wrong)


def test_each_model_trains_as_by_itself(tmp_path):
    """The seeds of one learning rate are `one_of` the recipe with that rate."""
    outcome = run(tmp_path / "run", learning_rate=RATES)
    for index, (rate, seed) in enumerate([(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]):
        config = Config(out=tmp_path / f"run{index}", epochs=2, learning_rate=rate)
        with runs.start(config, as_source(tiny.points())) as one:
            _, history = one.fit(jaxgen.one_of(recipe(config), seed))
        np.testing.assert_allclose(outcome.history[f"loss/{index}"], history["loss"], rtol=1e-5)


def test_run_of_several_models_resumes_with_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole", epochs=4, learning_rate=RATES)
    run(tmp_path / "cut", learning_rate=RATES)
    resumed = run(tmp_path / "cut", epochs=4, resume=True)
    chex.assert_trees_all_equal(whole.variables, resumed.variables)
    with pytest.raises(jaxgen.InputError, match=r"seeds=3: the run in .* has seeds=2"):
        run(tmp_path / "cut", resume=True, seeds=3)


def test_average_is_what_is_drawn_saved_and_loaded(tmp_path):
    drawn = {}
    outcome = run(tmp_path / "run", lambda run, epoch, variables: drawn.update({epoch: variables}), seeds=1, ema=0.9)
    source = as_source(tiny.points())
    averaging = jaxgen.averaged(tiny.recipe(Config()), 0.9)
    config = Config(out=tmp_path / "other", epochs=2)
    with runs.start(config, source) as other:
        state, _ = other.fit(averaging)
    chex.assert_trees_all_equal(outcome.variables, averaging.variables(state))
    chex.assert_trees_all_equal(drawn[2], outcome.variables)
    weights = jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables
    chex.assert_trees_all_equal(weights, outcome.variables)


# ---- What is written and said ----


def test_the_first_models_are_drawn_side_by_side_and_all_are_measured(tmp_path, capsys):
    def draw(run, epoch, variables):
        mean = float(variables["params"]["mean"].mean())
        run.picture("mean", pictures.to_image(np.full((4, 4), mean)), raw=Image.new("L", (4, 4)))
        run.values("mean", {"mean": mean})
        run.results({"mean": mean})

    outcome = run(tmp_path / "run", draw, seeds=6)
    for folder in ("epochs/000", "epochs/001", "final"):
        names = {path.name for path in (tmp_path / "run" / folder).iterdir()}
        assert names >= {"mean.png", "figures.json", *(f"{index}.mean.json" for index in range(6))}
    means = [json.loads((tmp_path / "run" / "final" / f"{index}.mean.json").read_text())["mean"] for index in range(6)]
    assert len(set(means)) == 6
    figures = json.loads((tmp_path / "run" / "final" / "figures.json").read_text())
    assert figures["mean"]["values"] == means
    assert figures["mean"]["value"] == pytest.approx(np.mean(means))
    assert figures["mean"]["standard_deviation"] == pytest.approx(np.std(means, ddof=1))
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    losses = [outcome.history[f"loss/{index}"][-1] for index in range(6)]
    assert finished["best_model"] == int(np.argmin(losses))
    assert finished["models"][3] == "seed 3"
    assert finished["results"]["mean/3"] == means[3] == outcome.results["mean/3"]
    said = capsys.readouterr().out
    rows = {line.rpartition("  ")[0].partition("  ")[0]: line.split()[-2:] for line in said.splitlines()}
    assert rows["seed 3"] == [f"{losses[3]:.4g}", f"{means[3]:.4g}"]
    assert f"{np.mean(losses):.4g}±" in said
    assert "seed 3: is small" in said
    assert f"best      seed {finished['best_model']}, model" in said


def test_curves_of_several_models_are_drawn(tmp_path):
    run(tmp_path / "run")
    assert size_of(tmp_path / "run" / "final" / "loss.png")[0] > 200


def test_metrics_of_several_models_are_shown_as_mean_and_deviation():
    metrics = {"loss/0": 0.5, "loss/1": 0.7, "error_fake/0": 1.0, "error_fake/1": 1.0}
    assert grouped(metrics, 3) == ["loss 0.6±0.1", "error_fake 1±0"]
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert f"{spread([60.0, 100.0]):.4g}" == "80±28"


def test_raw_pictures_are_beside_the_others(tmp_path):
    def draw(run, epoch, variables):
        run.picture("mean", Image.new("L", (40, 40)), raw=Image.new("L", (4, 4)))

    run(tmp_path / "run", draw, seeds=1)
    assert size_of(tmp_path / "run" / "epochs" / "001" / "raw" / "mean.png") == (4, 4)
    assert size_of(tmp_path / "run" / "final" / "mean.png") == (40, 40)


@pytest.mark.quality
def test_trained_models_are_measured_unless_that_is_turned_off(tmp_path):
    measured = []

    def draw(run, epoch, variables):
        run.results(lambda: measured.append(epoch) or {"quality": 3.0})

    assert run(tmp_path / "with", draw, seeds=1).results == {"quality": 3.0}
    assert measured == [1, 2]
    assert run(tmp_path / "without", draw, seeds=1, metrics=False).results == {}
    assert measured == [1, 2]


@pytest.mark.quality
def test_failing_figures_cost_the_figures_and_not_the_run(tmp_path):
    def draw(run, epoch, variables):
        run.results(lambda: {"quality": 1 / 0})
        run.picture("mean", Image.new("L", (4, 4)))

    outcome = run(tmp_path / "run", draw, seeds=1)
    assert "a figure of quality" in outcome.failures[0]
    assert (tmp_path / "run" / "final" / "mean.png").exists()
    assert (tmp_path / "run" / "finished.json").exists()


# ---- The page of a run ----


def test_page_is_written_at_the_start_and_at_the_end(tmp_path):
    seen = []

    def page(folder, kind):
        seen.append(((folder / "config.json").is_file(), (folder / "finished.json").exists(), kind))

    run(tmp_path / "run", page=page)
    assert seen[0] == (True, False, "live")
    assert seen[-1] == (True, True, "live")
    seen.clear()
    run(tmp_path / "none", page=page, report="none")
    assert seen == []
    run(tmp_path / "plain", page=page, report="plain")
    assert {kind for _, _, kind in seen} == {"plain"}


def test_a_slow_page_is_not_written_during_training_again(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("jaxgen.runs.run.time.monotonic", lambda: now[0])
    calls = []

    def page(folder, kind):
        calls.append(kind)
        now[0] += 100

    run(tmp_path / "run", page=page, epochs=6)
    assert len(calls) == 2


def test_a_page_that_fails_does_not_cost_the_run(tmp_path):
    def page(folder, kind):
        raise ValueError("no page")

    outcome = run(tmp_path / "run", page=page)
    assert "the page of the run was not drawn: ValueError: no page" in outcome.failures
    assert (tmp_path / "run" / "finished.json").exists()


# ---- Experiments ----


def test_dcgan_digits_of_two_seeds_and_an_average_samples(tmp_path):
    config = dcgan_digits.Config(epochs=1, seeds=2, ema=0.9, batch_size=599, out=tmp_path / "run")
    outcome = dcgan_digits.main(config)
    assert set(outcome.variables) == {f"{index}.{name}" for index in (0, 1) for name in ("generator", "discriminator")}
    assert set(outcome.module) == set(outcome.variables)
    assert len(outcome.history["error_fake/1"]) == 1
    assert {"samples.png", "errors.png", "training.gif"} <= {path.name for path in (tmp_path / "run/final").iterdir()}


def test_two_cells_are_compared_over_seeds(tmp_path, capsys):
    config = rnn_complete.Config(
        data="digits", size=(8, 8), hidden=4, batch_size=719, epochs=2, seeds=3, out=tmp_path / "run"
    )
    outcome = rnn_complete.main(config)
    final = {cell: runs.of_models(outcome.history[cell], "loss")[:, -1] for cell in ("lstm", "gru")}
    difference = np.mean(final["lstm"] - final["gru"])
    assert outcome.results["final_training_loss_difference"] == pytest.approx(difference)
    said = capsys.readouterr().out
    assert f"final training loss, LSTM − GRU: {difference:.3g}, 95 % interval" in said
    assert "over 3 pairs of models: " in said
    assert "seconds an epoch, LSTM − GRU: " in said
