"""Runs of the smallest experiment: the folder, resuming, signals and errors."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import durable, runs, training
from jaxgen.runs import checkpoint, log, run
from jaxgen.runs.command import command
from tests.support import tiny
from tests.support.signals import handlers_restored

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent


def contents(folder: Path) -> dict[str, object]:
    """Everything in a run's folder that is reproducible: all but times, paths and commands."""
    result: dict[str, object] = {}
    for path in sorted([*(folder / "epochs").rglob("*"), *(folder / "final").rglob("*")]):
        if path.is_file():
            result[str(path.relative_to(folder))] = path.read_bytes()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result["history"] = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    result["events"] = [line | {"from": None} for line in events(folder) if line["event"] != "checkpoint"]
    return result


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def tensors(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def call(monkeypatch, capsys, *arguments: str, experiment=tiny) -> tuple[int, str, str]:
    """Run the command line in this process; returns the exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["experiment", *arguments])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with handlers_restored(), pytest.raises(SystemExit) as stop:
        command(experiment.main, experiment.Config)
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory) -> runs.Outcome:
    """An uninterrupted run of six epochs."""
    return tiny.main(tiny.Config(out=tmp_path_factory.mktemp("complete_run") / "run"))


def test_run_folder_contents(complete_run):
    outcome, folder, history = complete_run, complete_run.folder, complete_run.history
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "checkpoints", "config.json", "environment.json", "epochs", "events.jsonl", "final", "finished.json",
        "metrics.jsonl",
    ]  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["learning_rate"] == 0.1
    assert config["options"].keys() == tiny.Config.model_fields.keys()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["jax"] == jax.__version__
    assert environment["seed"] == 0
    assert (environment["platform"], environment["devices"]) == ("cpu", ["cpu", "cpu"])  # two of four share a batch
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == history["loss"]
    drawn = {str(path.relative_to(folder / "epochs")) for path in (folder / "epochs").rglob("*.*")}
    assert drawn == {"000/mean.png", "002/mean.png", "004/mean.png", "006/mean.png"}
    last = {path.name for path in (folder / "final").iterdir()}
    assert last == {"mean.png", "learning.gif", "loss.png", "model.safetensors"}
    assert (folder / "final" / "mean.png").read_bytes() == (folder / "epochs" / "006" / "mean.png").read_bytes()
    with Image.open(folder / "final" / "learning.gif") as animation:
        assert animation.n_frames == 4
    assert json.loads((folder / "finished.json").read_text())["epochs"] == 6
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(
        load_file(folder / "final" / "model.safetensors")["mean"], outcome.variables["params"]["mean"]
    )


def test_training_keeps_one_copy_of_the_state(tmp_path, monkeypatch):
    """The parameter and Adam's two moments, with no copy of the initial state or of a checkpoint's."""

    def count_parameter_arrays() -> int:
        return sum(array.shape == (8, 8, 1) for array in jax.live_arrays())

    config, before, held = tiny.Config(out=tmp_path / "run", epochs=2, devices=1), count_parameter_arrays(), []
    initial = training.Loop.initial

    def beginning(*arguments):
        held.append(count_parameter_arrays() - before)
        return initial(*arguments)

    monkeypatch.setattr(training.Loop, "initial", beginning)
    with runs.start(config, tiny.points(), tiny.Mean()) as this_run:
        this_run.fit(tiny.recipe(config), [(1, lambda epoch, state: held.append(count_parameter_arrays() - before))])
    assert held == [0, 3, 3, 3]


def test_keep_limits_the_number_of_checkpoints(tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", keep=2))
    names = [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")]
    assert names == ["00000030", "00000036"]


def test_best_checkpoint_is_kept(tmp_path):
    folder = tmp_path / "run"
    config = tiny.Config(out=folder, keep=1, learning_rate=1.0)  # makes the error go up and down
    history = tiny.main(config.replace(out=tmp_path / "long", epochs=30)).history
    last = next(epoch for epoch in range(30, 0, -1) if np.argmin(history["loss"][:epoch]) + 1 < epoch)
    best = 1 + int(np.argmin(history["loss"][:last]))
    config = config.replace(epochs=last)
    outcome = tiny.main(config)
    names = [path.name for path in checkpoint.numbered(folder / "checkpoints")]
    assert names == [f"{6 * best:08d}", f"{6 * last:08d}"]
    first = tiny.main(config.replace(out=tmp_path / "until_the_best", epochs=best))
    assert bits(jaxgen.load(folder, best=True, module=tiny.Mean()).variables) == bits(first.variables)
    assert bits(jaxgen.load(folder, module=tiny.Mean()).variables) == bits(outcome.variables)


def test_log_has_every_checkpoint_and_each_note_once(complete_run):
    saved = [line for line in events(complete_run.folder) if line["event"] == "checkpoint"]
    assert [line["name"] for line in saved] == [f"{6 * epoch:08d}" for epoch in range(7)]
    below = [epoch for epoch, loss in enumerate(complete_run.history["loss"], 1) if loss < 0.4]
    assert len(below) > 1, "true more than once"
    (note,) = (line for line in events(complete_run.folder) if line["event"] == "note")
    assert note == {"event": "note", "epoch": below[0], "step": 0, "text": "the error is below 0.4"}


def test_untrained_state_is_checkpointed(tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", keep=100, save_every=4))
    names = [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")]
    assert names == ["00000000", "00000024", "00000036"]


def test_resuming_with_more_epochs_is_bitwise_reproducible(complete_run, tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=3))
    again = tiny.main(tiny.Config(out=tmp_path / "run", epochs=6, resume=True))
    assert bits(again.variables) == bits(complete_run.variables)
    assert again.history["loss"] == complete_run.history["loss"]
    assert contents(tmp_path / "run") == contents(complete_run.folder)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["epochs"] == 6


@pytest.mark.parametrize("at", [1, 5, 6, 7, 13])
def test_resuming_after_sigterm_at_any_step_is_bitwise_reproducible(complete_run, tmp_path, monkeypatch, at):
    """An epoch has six steps, so this includes the middle of one. Log and pictures are the same, too."""
    out = tmp_path / "run"
    slices = training.Loop.slices

    def stopping(*args, **options):
        for number, piece in enumerate(slices(*args, **options, seconds=0), start=1):
            if number == at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield piece

    monkeypatch.setattr(training.Loop, "slices", stopping)
    with pytest.raises(runs.Interrupted, match="stopped and saved"):
        tiny.main(tiny.Config(out=out, save_every=100))
    monkeypatch.undo()
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert bits(again.variables) == bits(complete_run.variables)
    assert contents(out) == contents(complete_run.folder)


def test_option_missing_from_a_stored_run_takes_its_default(complete_run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    tiny.main(tiny.Config(out=folder, epochs=3))
    edit(folder, lambda stored: stored["options"].pop("limit"))
    assert call(monkeypatch, capsys, "--out", str(folder), "--resume", "--epochs", "6")[0] == 0
    assert contents(folder) == contents(complete_run.folder)
    assert json.loads((folder / "config.json").read_text())["options"]["limit"] is None


def test_resuming_drops_records_newer_than_the_checkpoint(complete_run, tmp_path):
    """After a crash, the log and the pictures may be ahead of the newest checkpoint."""
    folder, out = complete_run.folder, tmp_path / "run"
    shutil.copytree(folder, out)
    (out / "finished.json").unlink()
    shutil.rmtree(out / "checkpoints" / "00000036")
    shutil.rmtree(out / "checkpoints" / "00000030")
    with (out / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 7, "lo')
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert bits(again.variables) == bits(complete_run.variables)
    assert contents(out) == contents(folder)


def test_resuming_a_finished_run_changes_nothing(complete_run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(complete_run.folder, out)
    before = snapshot(out)
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert "already at epoch 6; nothing to do" in capsys.readouterr().out
    assert snapshot(out) == before
    assert again.history["loss"] == complete_run.history["loss"]
    assert bits(again.variables) == bits(complete_run.variables)


def test_damaged_checkpoint_is_set_aside(complete_run, tmp_path, capsys):
    folder, out = complete_run.folder, tmp_path / "run"
    shutil.copytree(folder, out)
    (out / "finished.json").unlink()
    newest = checkpoint.numbered(out / "checkpoints")[-1]
    victim = max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert "set aside as damaged-00000036" in capsys.readouterr().err
    assert (out / "checkpoints" / "damaged-00000036").is_dir()
    assert bits(again.variables) == bits(complete_run.variables)
    assert contents(out) == contents(folder)


def test_runs_are_bitwise_reproducible_and_depend_on_the_seed(complete_run, tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(complete_run.folder)
    tiny.main(tiny.Config(out=tmp_path / "other", seed=1))
    assert contents(tmp_path / "other")["history"] != contents(complete_run.folder)["history"]


def test_load_ignores_a_run_nested_in_the_folder(complete_run, tmp_path):
    shutil.copytree(complete_run.folder, tmp_path / "run")
    shutil.copytree(complete_run.folder, tmp_path / "run" / "longer")
    assert bits(jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables) == bits(complete_run.variables)


def test_folders_are_synced_after_writes(tmp_path, monkeypatch):
    """So that new files survive a power cut, each folder is synced after a file was added to it."""
    synced = []
    sync = durable.sync
    for module in (durable, log, checkpoint):
        monkeypatch.setattr(module, "sync", lambda path: (synced.append(path), sync(path)))
    durable.write(tmp_path / "a" / "b.png", b"content")
    assert synced[-1] == tmp_path / "a"
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=1))
    for folder in (tmp_path, *(tmp_path / "run" / name for name in (".", "final", "epochs", "checkpoints"))):
        assert folder in synced


@pytest.mark.parametrize("devices", [1, 2])
def test_drawing_functions_get_arrays_committed_to_the_device(tmp_path, monkeypatch, devices):
    """Otherwise they would be compiled twice: for the untrained state and for those after it."""
    seen = []
    fit = runs.Run.fit

    def look(epoch, state):
        seen.extend((leaf.device, leaf.committed) for leaf in jax.tree.leaves(state))

    def watched(self, recipe, drawings, **options):
        return fit(self, recipe, [*drawings, (1, look)], **options)

    monkeypatch.setattr(runs.Run, "fit", watched)
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=2, device="cpu:1", devices=devices))
    assert set(seen) == {(jax.devices()[1], True)}


def test_device_option_sets_the_default_device(monkeypatch, capsys):
    def main(config):
        print(jax.numpy.zeros(()).device)

    experiment = SimpleNamespace(main=main, Config=tiny.Config)
    assert call(monkeypatch, capsys, "--device", "cpu:2", experiment=experiment)[:2] == (0, f"{jax.devices()[2]}\n")


def test_unencodable_names_are_printed_escaped(monkeypatch, capsys):
    def main(config):
        print("skipped: caf\udce9.png")

    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out, err) == (0, "skipped: caf\\udce9.png\n", "")


def test_gpu_matmuls_use_full_float32_precision(monkeypatch, capsys):
    def main(config):
        square = jax.ShapeDtypeStruct((2, 2), np.float32)
        print(jax.export.export(jax.jit(jax.numpy.dot), platforms=["cuda"])(square, square).mlir_module())

    _, lowered, _ = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert "precision = [HIGHEST, HIGHEST]" in lowered


def test_load_returns_variables_and_config(complete_run):
    trained = jaxgen.load(complete_run.folder, module=tiny.Mean())
    assert bits(trained.variables) == bits(complete_run.variables)
    assert trained.config.learning_rate == 0.1


def test_load_best_without_a_best_checkpoint_is_refused(complete_run, tmp_path):
    shutil.copytree(complete_run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(jaxgen.InputError, match="no checkpoint is the best one; load the newest"):
        jaxgen.load(tmp_path / "run", best=True, module=tiny.Mean())


def test_load_best_refuses_a_damaged_checkpoint(complete_run, tmp_path):
    shutil.copytree(complete_run.folder, tmp_path / "run")
    best = checkpoint.best(tmp_path / "run" / "checkpoints")
    (best / "manifest.json").unlink()
    with pytest.raises(jaxgen.InputError, match=r"the best checkpoint is damaged: .*; load the newest"):
        jaxgen.load(tmp_path / "run", best=True, module=tiny.Mean())


@pytest.fixture
def bad_point(monkeypatch) -> int:
    """Make one of the points infinite; returns its index."""
    data = tiny.points()
    data[3] = np.inf
    monkeypatch.setattr(tiny, "points", lambda: data)
    return 3


def test_non_finite_value_ends_the_run_and_names_step_and_tensor(tmp_path, bad_point, monkeypatch, capsys):
    folder = tmp_path / "run"
    status, out, err = call(monkeypatch, capsys, "--out", str(folder))
    assert status == 1
    assert "a value is not finite; looking for the step, from checkpoint 00000000 on\n" in out
    said = re.fullmatch(
        r"error: epoch 1, step (\d): first non-finite value: \['batch'\] float32\[\d, 8, 8, 1\]; "
        r"(\S+) is good; to resume from there: \S+ -m tests\.support\.tiny --out \S+ --resume "
        r"\(--on-nan skip skips the step\)\n",
        err,
    )
    assert said
    assert [path.name for path in checkpoint.numbered(folder / "checkpoints")] == ["00000000"]
    assert Path(said[2]) == folder / "checkpoints" / "00000000"
    event = events(folder)[-1]
    assert (event["event"], event["epoch"], event["step"], event["then"]) == ("not finite", 0, int(said[1]), "stop")
    assert bad_point in event["rows"]


def test_on_nan_skip_skips_the_bad_step(tmp_path, bad_point, monkeypatch, capsys):
    folder = tmp_path / "run"
    call(monkeypatch, capsys, "--out", str(folder))
    status, out, err = call(monkeypatch, capsys, "--out", str(folder), "--resume", "--on-nan", "skip")
    assert (status, err) == (0, "")
    skipped = [line for line in events(folder) if line["event"] == "not finite"]
    assert [line["epoch"] for line in skipped] == [0, 1, 2, 3, 4, 5]  # once per epoch
    assert all(bad_point in line["rows"] and line["then"] == "skip" for line in skipped)
    assert out.count("the step is skipped") == 6
    outcome = tiny.main(tiny.Config(out=tmp_path / "at_once", on_nan="skip"))
    assert contents(tmp_path / "at_once") == contents(folder)
    assert np.isfinite(outcome.history["loss"]).all()
    assert bits(jaxgen.load(folder, module=tiny.Mean()).variables) == bits(outcome.variables)


def test_resuming_after_a_skipped_step_is_bitwise_reproducible(tmp_path, bad_point, monkeypatch):
    """With the skipped step after and before the checkpoint that the run resumes from."""
    tiny.main(tiny.Config(out=tmp_path / "complete_run", on_nan="skip"))
    for epochs in (2, 5):
        folder = tmp_path / f"after_{epochs}"
        tiny.main(tiny.Config(out=folder, on_nan="skip", epochs=epochs, save_every=4))
        tiny.main(tiny.Config(out=folder, on_nan="skip", epochs=6, resume=True))
        assert contents(folder) == contents(tmp_path / "complete_run")


def test_consecutive_bad_steps_are_not_skipped(tmp_path, monkeypatch, capsys):
    data = tiny.points()
    data[:] = np.nan
    monkeypatch.setattr(tiny, "points", lambda: data)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--on-nan", "skip")
    assert status == 1
    assert "epoch 1, step 2: " in err
    assert "consecutive bad steps are not skipped" in err


def test_irreproducible_bad_step_ends_the_run(tmp_path, bad_point, monkeypatch, capsys):
    """Simulates a device that is not deterministic: when the steps are repeated, the data is good."""
    search = run.find_bad_step
    good = training.as_source(np.zeros_like(tiny.points()))

    def elsewhere(loop, *others, **options):
        return search(training.Loop(loop.recipe, good, loop.batch_size, loop.devices), *others, **options)

    monkeypatch.setattr(run, "find_bad_step", elsewhere)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert (status, err.count("\n")) == (1, 1)
    assert "the device is not deterministic" in err
    assert f"-m tests.support.tiny --out {tmp_path / 'run'} --resume" in err


def newest(folder: Path) -> Path:
    return checkpoint.numbered(folder / "checkpoints")[-1]


def test_output_without_a_terminal(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    status, text, err = call(monkeypatch, capsys, "--out", str(out), "--epochs", "2")
    assert (status, err) == (0, "")
    lines = text.splitlines()
    assert lines[0].startswith("device    cpu:0")
    assert lines[1] == f"folder    {out}"
    assert lines[2] == "compiling the training step, once"
    assert re.fullmatch(r"epoch 1/2  loss \d\.\d{3,4}  [\d,.]+ steps/s  \d+:\d\d left", lines[3])
    assert lines[4].startswith("epoch 2/2")
    assert lines[5] == "epoch 2: the error is below 0.4"
    assert lines[6] == "finishing: the weights and the last pictures"
    assert f"run       {out}" in lines
    assert str(out / "final" / "loss.png") in text


def test_output_on_a_terminal_has_a_progress_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    status, text, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--epochs", "2")
    assert (status, err) == (0, "")
    shown = re.split(r"[\r\n]", text)
    assert [line[:9] for line in shown if re.match(r"epoch \d/2  loss", line)] == ["epoch 1/2", "epoch 2/2"]
    assert any(re.match(r"epoch \d/2 \|.* steps/s.*left", line) for line in shown)
    assert "epoch  " not in text  # a line without a number, from before the first step


def test_help_shows_options_and_defaults(monkeypatch, capsys):
    status, text, _ = call(monkeypatch, capsys, "--help")
    assert status == 0
    for said in (
        "-m tests.support.tiny",
        "--learning-rate FLOAT",
        "(default: 0.1)",
        "--resume",
        "Passes over the points",
    ):
        assert said in text


BAD = {
    "an unknown option": (["--epoch", "3"], "--epoch"),
    "a value of the wrong type": (["--epochs", "x"], "--epochs"),
    "a missing value": (["--epochs"], "--epochs"),
    "no epochs": (["--epochs", "0"], "--epochs 0: must be 1 or more"),
    "a negative batch": (["--batch-size", "-1"], "--batch-size -1: must be 1 or more"),
    "a batch larger than the data": (["--batch-size", "23"], "--batch-size 23: there are only 22 images"),
    "a learning rate of zero": (["--learning-rate", "0"], "--learning-rate 0.0: must be a number above 0"),
    "a learning rate of NaN": (["--learning-rate", "nan"], "--learning-rate nan: must be a number above 0"),
    "an infinite learning rate": (["--learning-rate", "inf"], "--learning-rate inf: must be a number above 0"),
    "a negative seed": (["--seed", "-1"], "--seed -1: must be 0 or more"),
    "zero instead of none": (["--limit", "0"], "--limit 0: must be 1 or more"),
    "zero checkpoints to keep": (["--keep", "0"], "--keep 0: must be 1 or more"),
    "a missing device": (["--device", "gpu"], "--device gpu: there is no such device; here: cpu:0"),
    "a device number out of range": (["--device", "cpu:99"], "--device cpu:99: there is no such device"),
    "a positional argument": (["train"], "train"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_invalid_options_exit_with_one_line(tmp_path, monkeypatch, capsys, case):
    arguments, said = BAD[case]
    status, out, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


def holds_a_run(folder: Path) -> list[str]:
    return []


def is_a_file(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    folder.write_text("mine")
    return []


def is_below_a_file(folder: Path) -> list[str]:
    is_a_file(folder)
    return ["--out", str(folder / "below")]


def holds_other_files(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    return []


def cannot_be_created(folder: Path) -> list[str]:
    return ["--out", "/proc/nowhere/run"]


def nothing_to_resume(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    return ["--resume"]


def another_experiment(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored.update(experiment="experiments.other"))
    return ["--resume"]


def changed_setting(folder: Path) -> list[str]:
    return ["--resume", "--learning-rate", "0.2"]


def changed_tuple(folder: Path) -> list[str]:
    return ["--resume", "--kind", "c"]


def other_data(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored.update(data_sha256="0" * 64))
    return ["--resume"]


def cut_config(folder: Path) -> list[str]:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:50])
    return ["--resume"]


def unknown_option_stored(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored["options"].update(dropout=0.5))
    return ["--resume"]


def changed_setting_missing_from_the_run(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored["options"].pop("limit"))
    return ["--resume", "--limit", "5"]


def option_of_another_type(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored["options"].update(batch_size="four"))
    return ["--resume"]


def option_out_of_range(folder: Path) -> list[str]:
    edit(folder, lambda stored: stored["options"].update(batch_size=0))
    return ["--resume"]


def no_checkpoint(folder: Path) -> list[str]:
    shutil.rmtree(folder / "checkpoints")
    return ["--resume", "--epochs", "9"]


def no_complete_checkpoint(folder: Path) -> list[str]:
    for path in checkpoint.numbered(folder / "checkpoints"):
        (path / "about.json").unlink()
    return ["--resume", "--epochs", "9"]


def checkpoint_of_another_recipe(folder: Path) -> list[str]:
    for path in checkpoint.numbered(folder / "checkpoints"):
        about = json.loads((path / "about.json").read_text())
        about["tree"][".state.variables['params']['mean']"] = "float32[7, 7, 1]"
        (path / "about.json").write_text(json.dumps(about))
        (path / "manifest.json").write_text(json.dumps(checkpoint.checksums(path)))
    return ["--resume"]


def fewer_epochs_than_trained(folder: Path) -> list[str]:
    (folder / "finished.json").unlink()
    return ["--resume", "--epochs", "2"]


def edit(folder: Path, change) -> None:
    stored = json.loads((folder / "config.json").read_text())
    change(stored)
    (folder / "config.json").write_text(json.dumps(stored))


FOLDERS = {
    holds_a_run: "already holds a run; --resume resumes it",
    is_a_file: "is not a folder",
    is_below_a_file: "is not a folder",
    holds_other_files: "holds other files",
    cannot_be_created: "cannot be written",
    nothing_to_resume: "no run to resume",
    another_experiment: "holds a run of experiments.other, not tests.support.tiny",
    changed_setting: "--learning-rate 0.2: the run in",
    changed_setting_missing_from_the_run: "--limit 5: the run in",
    changed_tuple: "--kind c: the run in",
    other_data: "started on other data",
    cut_config: "not a run's configuration",
    unknown_option_stored: "option 'dropout' is not known",
    option_of_another_type: "batch_size='four': must be a whole number",
    option_out_of_range: "batch_size=0: must be 1 or more",
    no_checkpoint: "no checkpoint to resume from",
    no_complete_checkpoint: "nothing was deleted",
    checkpoint_of_another_recipe: "not a checkpoint of this recipe: .state.variables['params']['mean']",
    fewer_epochs_than_trained: "is past that; ask for more",
}


@pytest.mark.parametrize("prepare", FOLDERS, ids=lambda prepare: prepare.__name__)
def test_unusable_run_folder_is_refused_and_not_changed(complete_run, tmp_path, monkeypatch, capsys, prepare):
    folder = tmp_path / "run"
    shutil.copytree(complete_run.folder, folder)
    arguments = prepare(folder)
    before = snapshot(tmp_path)
    status, out, err = call(monkeypatch, capsys, "--out", str(folder), *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert FOLDERS[prepare] in err
    after = {name: content for name, content in snapshot(tmp_path).items() if not name.endswith(".lock")}
    assert after == {name: content for name, content in before.items() if not name.endswith(".lock")}


def test_read_only_folder_is_refused(tmp_path, monkeypatch, capsys):
    """`os.access` is replaced because permissions do not restrict root."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if Path(path) == tmp_path else real(path, mode))
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert status == 2
    assert f"{tmp_path} is not writable" in err


def test_full_disk_ends_with_one_line_and_keeps_the_checkpoints(tmp_path, monkeypatch, capsys):
    save = checkpoint.save

    def full(folder, number, *args, **options):
        if number >= 12:
            raise OSError(28, "No space left on device")
        return save(folder, number, *args, **options)

    monkeypatch.setattr(checkpoint, "save", full)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert status == 1
    assert err == ("error: No space left on device; what was saved is intact, and --resume continues from there\n")
    assert [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")] == ["00000000", "00000006"]


LIMIT = 240  # seconds in which a process must have done what is waited for, on a slow day


@pytest.fixture
def launch():
    """Start the tiny experiment in a process that is killed, if it still runs, when the test ends."""
    started = []

    def start(folder: Path, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
        words = [sys.executable, "-m", "tests.support.tiny", "--out", str(folder), "--save-every", "100000", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_and_prints_the_resume_command(tmp_path, launch, number, status):
    folder = tmp_path / "run"
    process = launch(folder, "--epochs", "100000", "--sample-every", "100000")
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    second = launch(folder, "--resume")  # while the first is running
    out, err = second.communicate(timeout=LIMIT)
    assert (second.returncode, out) == (2, "")
    assert "another process is working on this run" in err
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == status
    announced, stopped = err.splitlines()
    assert announced.startswith("stopping: saving after the current step")
    said = re.fullmatch(r"stopped and saved after (\d+) epochs and (\d+) steps; to resume: (.*)", stopped)
    assert said
    python, _, arguments = said[3].partition(" ")  # the shortest name of this interpreter that works in ROOT
    assert os.path.abspath(shutil.which(python, path=os.environ["PATH"]) or ROOT / python) == sys.executable
    assert arguments == f"-m tests.support.tiny --out {folder} --resume"
    newest = checkpoint.numbered(folder / "checkpoints")[-1]
    assert checkpoint.verify(newest)["epoch"] == int(said[1])
    going_on = launch(folder, "--resume", "--epochs", str(int(said[1]) + 2))
    out, err = going_on.communicate(timeout=LIMIT)
    assert (going_on.returncode, err) == (0, "")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, int(said[1]) + 3))


def test_run_that_is_stopped_while_it_draws_compiles_nothing_more(tmp_path, capsys):
    def draw(epoch, variables):
        signal.raise_signal(signal.SIGTERM)

    config = tiny.Config(out=tmp_path / "run")
    with (
        pytest.raises(runs.Interrupted, match="saved after 0 epochs and 0 steps"),
        runs.start(config, tiny.points(), tiny.Mean()) as this_run,
    ):
        this_run.fit(tiny.recipe(config), [(1, draw)])
    assert "compiling" not in capsys.readouterr().out


def test_signal_is_handled_where_python_drops_exceptions(monkeypatch, capsys):
    """Python drops exceptions raised in a callback of the garbage collector."""

    def once(phase, info):
        gc.callbacks.remove(once)
        signal.raise_signal(signal.SIGTERM)

    def main(config):
        gc.callbacks.append(once)
        gc.collect()
        time.sleep(LIMIT)

    began = time.monotonic()
    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out) == (143, "")
    assert err.startswith("stopped; what was saved is intact")
    assert err.count("\n") == 1
    assert time.monotonic() - began < LIMIT / 2


@pytest.mark.parametrize(
    ("caught", "made"),
    [
        # JAX does so while it starts a backend and when it reads its compilation cache.
        (Exception, RuntimeError("Unable to initialize backend")),
        # C extensions such as Matplotlib's ft2font do so with any exception during their import.
        (BaseException, ImportError("initialization failed")),
    ],
)
def test_signal_is_handled_where_a_library_catches_exceptions(monkeypatch, capsys, caught, made):
    def main(config):
        try:
            signal.raise_signal(signal.SIGTERM)
        except caught as error:
            raise made from error

    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out) == (143, "")
    assert err.startswith("stopped; what was saved is intact")
    assert err.count("\n") == 1


def test_two_ctrl_c_in_a_row_count_as_one(tmp_path, launch):
    folder = tmp_path / "run"
    process = launch(folder, "--epochs", "100000", "--sample-every", "100000")
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    announced, stopped = err.splitlines()
    assert announced.startswith("stopping: saving")
    assert stopped.startswith("stopped and saved after")
