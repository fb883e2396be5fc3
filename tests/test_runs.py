"""A run from the outside: its folder, resuming, signals and errors, on the smallest experiment."""

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

ROOT = Path(__file__).parent.parent


def contents(folder: Path) -> dict[str, object]:
    """What must be equal in two equal runs: everything but the times and where and how they were started."""
    found: dict[str, object] = {}
    for path in sorted([*(folder / "epochs").rglob("*"), *(folder / "final").rglob("*")]):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found["history"] = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    found["events"] = [line | {"from": None} for line in events(folder) if line["event"] != "checkpoint"]
    return found


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def tensors(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def call(monkeypatch, capsys, *arguments: str, experiment=tiny) -> tuple[int, str, str]:
    """The command line in this process: exit status, stdout, stderr."""
    before = {number: signal.getsignal(number) for number in run.STOP_SIGNALS}
    monkeypatch.setattr(sys, "argv", ["experiment", *arguments])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    try:
        with pytest.raises(SystemExit) as stop:
            command(experiment.main, experiment.Config)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def through(tmp_path_factory) -> runs.Outcome:
    """A run of six epochs without a break."""
    return tiny.main(tiny.Config(out=tmp_path_factory.mktemp("through") / "run"))


def test_the_folder_of_a_run(through):
    outcome, folder, history = through, through.folder, through.history
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
    assert (environment["platform"], environment["devices"]) == ("cpu", ["cpu", "cpu"])  # two of the four share a batch
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


def test_a_run_holds_its_state_once(tmp_path, monkeypatch):
    """The parameter and Adam's two moments, and neither the first state, not even while it begins, nor a
    checkpoint's."""

    def of_their_shape() -> int:
        return sum(array.shape == (8, 8, 1) for array in jax.live_arrays())

    config, before, held = tiny.Config(out=tmp_path / "run", epochs=2, devices=1), of_their_shape(), []
    initial = training.Loop.initial

    def beginning(*arguments):
        held.append(of_their_shape() - before)
        return initial(*arguments)

    monkeypatch.setattr(training.Loop, "initial", beginning)
    with runs.start(config, tiny.points(), tiny.Mean()) as this_run:
        this_run.fit(tiny.recipe(config), [(1, lambda epoch, state: held.append(of_their_shape() - before))])
    assert held == [0, 3, 3, 3]


def test_the_last_few_checkpoints_are_kept(tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", keep=2))
    names = [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")]
    assert names == ["00000030", "00000036"]


def test_the_best_is_kept_beside_the_newest(tmp_path):
    folder = tmp_path / "run"
    config = tiny.Config(out=folder, keep=1, learning_rate=1.0)  # so that the error goes up and down
    history = tiny.main(config.replace(out=tmp_path / "long", epochs=30)).history
    last = next(epoch for epoch in range(30, 0, -1) if np.argmin(history["loss"][:epoch]) + 1 < epoch)
    best = 1 + int(np.argmin(history["loss"][:last]))
    config = config.replace(epochs=last)
    outcome = tiny.main(config)
    names = [path.name for path in checkpoint.numbered(folder / "checkpoints")]
    assert names == [f"{6 * best:08d}", f"{6 * last:08d}"]
    first = tiny.main(config.replace(out=tmp_path / "as_far_as_the_best", epochs=best))
    assert bits(jaxgen.load(folder, best=True, module=tiny.Mean()).variables) == bits(first.variables)
    assert bits(jaxgen.load(folder, module=tiny.Mean()).variables) == bits(outcome.variables)


def test_every_checkpoint_is_in_the_log_and_every_note_once(through):
    saved = [line for line in events(through.folder) if line["event"] == "checkpoint"]
    assert [line["name"] for line in saved] == [f"{6 * epoch:08d}" for epoch in range(7)]
    below = [epoch for epoch, loss in enumerate(through.history["loss"], 1) if loss < 0.4]
    assert len(below) > 1, "noted once, though true more often"
    (note,) = (line for line in events(through.folder) if line["event"] == "note")
    assert note == {"event": "note", "epoch": below[0], "step": 0, "text": "the error is below 0.4"}


def test_the_untrained_model_is_saved_first(tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", keep=100, save_every=4))
    names = [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")]
    assert names == ["00000000", "00000024", "00000036"]


def test_more_epochs_continue_to_the_same_result(through, tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=3))
    again = tiny.main(tiny.Config(out=tmp_path / "run", epochs=6, resume=True))
    assert bits(again.variables) == bits(through.variables)
    assert again.history["loss"] == through.history["loss"]
    assert contents(tmp_path / "run") == contents(through.folder)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["epochs"] == 6


@pytest.mark.parametrize("at", [1, 5, 6, 7, 13])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_result(through, tmp_path, monkeypatch, at):
    """Also in the middle of an epoch (there are six steps in one), with the log and the pictures as they belong."""
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
    assert bits(again.variables) == bits(through.variables)
    assert contents(out) == contents(through.folder)


def test_a_run_from_before_an_option_goes_on_with_its_default(through, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    tiny.main(tiny.Config(out=folder, epochs=3))
    edit(folder, lambda found: found["options"].pop("limit"))
    assert call(monkeypatch, capsys, "--out", str(folder), "--resume", "--epochs", "6")[0] == 0
    assert contents(folder) == contents(through.folder)
    assert json.loads((folder / "config.json").read_text())["options"]["limit"] is None


def test_what_is_later_than_the_checkpoint_is_dropped(through, tmp_path):
    """As after a crash: the log and the pictures are ahead of the newest checkpoint."""
    folder, out = through.folder, tmp_path / "run"
    shutil.copytree(folder, out)
    (out / "finished.json").unlink()
    shutil.rmtree(out / "checkpoints" / "00000036")
    shutil.rmtree(out / "checkpoints" / "00000030")
    with (out / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 7, "lo')
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert bits(again.variables) == bits(through.variables)
    assert contents(out) == contents(folder)


def test_asking_again_redoes_nothing(through, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(through.folder, out)
    before = snapshot(out)
    again = tiny.main(tiny.Config(out=out, resume=True))
    assert "already at epoch 6; nothing to do" in capsys.readouterr().out
    assert snapshot(out) == before
    assert again.history["loss"] == through.history["loss"]
    assert bits(again.variables) == bits(through.variables)


def test_a_damaged_checkpoint_is_set_aside(through, tmp_path, capsys):
    folder, out = through.folder, tmp_path / "run"
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
    assert bits(again.variables) == bits(through.variables)
    assert contents(out) == contents(folder)


def test_two_runs_are_the_same_to_the_last_bit_and_another_seed_is_not(through, tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(through.folder)
    tiny.main(tiny.Config(out=tmp_path / "other", seed=1))
    assert contents(tmp_path / "other")["history"] != contents(through.folder)["history"]


def test_a_run_within_a_runs_folder_is_another(through, tmp_path):
    shutil.copytree(through.folder, tmp_path / "run")
    shutil.copytree(through.folder, tmp_path / "run" / "longer")
    assert bits(jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables) == bits(through.variables)


def test_what_is_written_is_in_its_folder_after_a_power_cut(tmp_path, monkeypatch):
    """The folders are synced that something was added to, each after it was."""
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
def test_what_is_drawn_is_on_the_runs_device_from_the_start(tmp_path, monkeypatch, devices):
    """Committed to it, or what draws would be compiled once for the untrained state and once for those after it."""
    seen = []
    fit = runs.Run.fit

    def look(epoch, state):
        seen.extend((leaf.device, leaf.committed) for leaf in jax.tree.leaves(state))

    def watched(self, recipe, drawings, **options):
        return fit(self, recipe, [*drawings, (1, look)], **options)

    monkeypatch.setattr(runs.Run, "fit", watched)
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=2, device="cpu:1", devices=devices))
    assert set(seen) == {(jax.devices()[1], True)}


def test_everything_is_on_the_device_that_was_asked_for(monkeypatch, capsys):
    def main(config):
        print(jax.numpy.zeros(()).device)

    experiment = SimpleNamespace(main=main, Config=tiny.Config)
    assert call(monkeypatch, capsys, "--device", "cpu:2", experiment=experiment)[:2] == (0, f"{jax.devices()[2]}\n")


def test_a_name_that_no_encoding_knows_is_printed_all_the_same(monkeypatch, capsys):
    def main(config):
        print("skipped: caf\udce9.png")

    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out, err) == (0, "skipped: caf\\udce9.png\n", "")


def test_float32_is_float32_on_a_gpu_too(monkeypatch, capsys):
    def main(config):
        square = jax.ShapeDtypeStruct((2, 2), np.float32)
        print(jax.export.export(jax.jit(jax.numpy.dot), platforms=["cuda"])(square, square).mlir_module())

    _, lowered, _ = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert "precision = [HIGHEST, HIGHEST]" in lowered


def test_load_gives_a_notebook_what_was_trained(through):
    trained = jaxgen.load(through.folder, module=tiny.Mean())
    assert bits(trained.variables) == bits(through.variables)
    assert trained.config.learning_rate == 0.1


@pytest.fixture
def bad_point(monkeypatch) -> int:
    """One of the points is not finite."""
    data = tiny.points()
    data[3] = np.inf
    monkeypatch.setattr(tiny, "points", lambda: data)
    return 3


def test_a_value_that_is_not_finite_ends_the_run_and_names_step_and_tensor(tmp_path, bad_point, monkeypatch, capsys):
    folder = tmp_path / "run"
    status, out, err = call(monkeypatch, capsys, "--out", str(folder))
    assert status == 1
    assert "a value is not finite; looking for the step, from checkpoint 00000000 on\n" in out
    said = re.fullmatch(
        r"error: epoch 1, step (\d): the first value that is not finite: \['batch'\] float32\[\d, 8, 8, 1\]; "
        r"(\S+) is good; to go on from there: \S+ -m tests\.support\.tiny --out \S+ --resume "
        r"\(--on-nan skip skips the step\)\n",
        err,
    )
    assert said
    assert [path.name for path in checkpoint.numbered(folder / "checkpoints")] == ["00000000"]
    assert Path(said[2]) == folder / "checkpoints" / "00000000"
    event = events(folder)[-1]
    assert (event["event"], event["epoch"], event["step"], event["then"]) == ("not finite", 0, int(said[1]), "stop")
    assert bad_point in event["rows"]


def test_a_step_that_makes_a_value_not_finite_can_be_left_out(tmp_path, bad_point, monkeypatch, capsys):
    folder = tmp_path / "run"
    call(monkeypatch, capsys, "--out", str(folder))
    status, out, err = call(monkeypatch, capsys, "--out", str(folder), "--resume", "--on-nan", "skip")
    assert (status, err) == (0, "")
    skipped = [line for line in events(folder) if line["event"] == "not finite"]
    assert [line["epoch"] for line in skipped] == [0, 1, 2, 3, 4, 5]  # once in every epoch
    assert all(bad_point in line["rows"] and line["then"] == "skip" for line in skipped)
    assert out.count("the step is skipped") == 6
    outcome = tiny.main(tiny.Config(out=tmp_path / "at_once", on_nan="skip"))
    assert contents(tmp_path / "at_once") == contents(folder)
    assert np.isfinite(outcome.history["loss"]).all()
    # The result is what the other steps alone make.
    assert bits(jaxgen.load(folder, module=tiny.Mean()).variables) == bits(outcome.variables)


def test_a_run_that_left_out_a_step_and_was_stopped_goes_on_to_the_same(tmp_path, bad_point, monkeypatch):
    """The step is behind the checkpoint that the run goes on from, or before it."""
    tiny.main(tiny.Config(out=tmp_path / "through", on_nan="skip"))
    for epochs in (2, 5):
        folder = tmp_path / f"after_{epochs}"
        tiny.main(tiny.Config(out=folder, on_nan="skip", epochs=epochs, save_every=4))
        tiny.main(tiny.Config(out=folder, on_nan="skip", epochs=6, resume=True))
        assert contents(folder) == contents(tmp_path / "through")


def test_two_bad_steps_in_a_row_are_the_models_fault(tmp_path, monkeypatch, capsys):
    data = tiny.points()
    data[:] = np.nan
    monkeypatch.setattr(tiny, "points", lambda: data)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--on-nan", "skip")
    assert status == 1
    assert "epoch 1, step 2: " in err
    assert "consecutive bad steps are not skipped" in err


def test_a_bad_step_that_does_not_come_again_ends_the_run(tmp_path, bad_point, monkeypatch, capsys):
    """As on a device that does not compute the same twice: here the data is good when the steps are run again."""
    search = run.find_bad_step
    good = training.as_source(np.zeros_like(tiny.points()))

    def elsewhere(loop, *others, **options):
        return search(training.Loop(loop.recipe, good, loop.batch_size, loop.devices), *others, **options)

    monkeypatch.setattr(run, "find_bad_step", elsewhere)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert (status, err.count("\n")) == (1, 1)
    assert "the device does not compute the same twice" in err
    assert f"-m tests.support.tiny --out {tmp_path / 'run'} --resume" in err


def newest(folder: Path) -> Path:
    return checkpoint.numbered(folder / "checkpoints")[-1]


def test_a_plain_line_an_epoch_and_the_results_at_the_end(tmp_path, monkeypatch, capsys):
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


def test_a_live_line_below_them_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    status, text, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--epochs", "2")
    assert (status, err) == (0, "")
    shown = re.split(r"[\r\n]", text)
    assert [line[:9] for line in shown if re.match(r"epoch \d/2  loss", line)] == ["epoch 1/2", "epoch 2/2"]
    assert any(re.match(r"epoch \d/2 \|.* steps/s.*left", line) for line in shown)
    assert "epoch  " not in text  # without its number, while the first step is compiled


def test_help_states_defaults(monkeypatch, capsys):
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
    "a value missing": (["--epochs"], "--epochs"),
    "no epochs": (["--epochs", "0"], "--epochs 0: must be 1 or more"),
    "a negative batch": (["--batch-size", "-1"], "--batch-size -1: must be 1 or more"),
    "a batch larger than the data": (["--batch-size", "23"], "batch size 23: must be from 1 to the 22 examples"),
    "a learning rate of zero": (["--learning-rate", "0"], "--learning-rate 0.0: must be a number above 0"),
    "a learning rate that is none": (["--learning-rate", "nan"], "--learning-rate nan: must be a number above 0"),
    "an infinite learning rate": (["--learning-rate", "inf"], "--learning-rate inf: must be a number above 0"),
    "a negative seed": (["--seed", "-1"], "--seed -1: must be 0 or more"),
    "zero where none is meant": (["--limit", "0"], "--limit 0: must be 1 or more"),
    "no checkpoint kept": (["--keep", "0"], "--keep 0: must be 1 or more"),
    "a device that is not there": (["--device", "gpu"], "--device gpu: there is no such device; here: cpu:0"),
    "a device of too high a number": (["--device", "cpu:99"], "--device cpu:99: there is no such device"),
    "a word that is no option": (["train"], "train"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_options(tmp_path, monkeypatch, capsys, case):
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


def cannot_be_made(folder: Path) -> list[str]:
    return ["--out", "/proc/nowhere/run"]


def nothing_to_resume(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    return ["--resume"]


def another_experiment(folder: Path) -> list[str]:
    edit(folder, lambda found: found.update(experiment="experiments.other"))
    return ["--resume"]


def changed_setting(folder: Path) -> list[str]:
    return ["--resume", "--learning-rate", "0.2"]


def changed_tuple(folder: Path) -> list[str]:
    return ["--resume", "--kind", "c"]


def other_data(folder: Path) -> list[str]:
    edit(folder, lambda found: found.update(data_sha256="0" * 64))
    return ["--resume"]


def cut_config(folder: Path) -> list[str]:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:50])
    return ["--resume"]


def unknown_option_stored(folder: Path) -> list[str]:
    edit(folder, lambda found: found["options"].update(dropout=0.5))
    return ["--resume"]


def changed_setting_younger_than_the_run(folder: Path) -> list[str]:
    edit(folder, lambda found: found["options"].pop("limit"))
    return ["--resume", "--limit", "5"]


def option_of_another_type(folder: Path) -> list[str]:
    edit(folder, lambda found: found["options"].update(batch_size="four"))
    return ["--resume"]


def option_out_of_range(folder: Path) -> list[str]:
    edit(folder, lambda found: found["options"].update(batch_size=0))
    return ["--resume"]


def no_checkpoint(folder: Path) -> list[str]:
    shutil.rmtree(folder / "checkpoints")
    return ["--resume", "--epochs", "9"]


def no_whole_checkpoint(folder: Path) -> list[str]:
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


def fewer_epochs_than_there_are(folder: Path) -> list[str]:
    (folder / "finished.json").unlink()
    return ["--resume", "--epochs", "2"]


def edit(folder: Path, change) -> None:
    found = json.loads((folder / "config.json").read_text())
    change(found)
    (folder / "config.json").write_text(json.dumps(found))


FOLDERS = {
    holds_a_run: "already holds a run; --resume goes on with it",
    is_a_file: "is not a folder",
    is_below_a_file: "is not a folder",
    holds_other_files: "holds other files",
    cannot_be_made: "cannot be written",
    nothing_to_resume: "no run to go on with",
    another_experiment: "holds a run of experiments.other, not tests.support.tiny",
    changed_setting: "--learning-rate 0.2: the run in",
    changed_setting_younger_than_the_run: "--limit 5: the run in",
    changed_tuple: "--kind c: the run in",
    other_data: "started on other data",
    cut_config: "not a run's configuration",
    unknown_option_stored: "option 'dropout' is not known",
    option_of_another_type: "batch_size='four': must be a whole number",
    option_out_of_range: "batch_size=0: must be 1 or more",
    no_checkpoint: "no checkpoint to go on from",
    no_whole_checkpoint: "nothing was deleted",
    checkpoint_of_another_recipe: "not a checkpoint of this recipe: .state.variables['params']['mean']",
    fewer_epochs_than_there_are: "is past that; ask for more",
}


@pytest.mark.parametrize("prepare", FOLDERS, ids=lambda prepare: prepare.__name__)
def test_bad_folders(through, tmp_path, monkeypatch, capsys, prepare):
    folder = tmp_path / "run"
    shutil.copytree(through.folder, folder)
    arguments = prepare(folder)
    before = snapshot(tmp_path)
    status, out, err = call(monkeypatch, capsys, "--out", str(folder), *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert FOLDERS[prepare] in err
    after = {name: found for name, found in snapshot(tmp_path).items() if not name.endswith(".lock")}
    assert after == {name: found for name, found in before.items() if not name.endswith(".lock")}


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch, capsys):
    """The permissions of root do not stop root, so the answer of the system is given here."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if Path(path) == tmp_path else real(path, mode))
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert status == 2
    assert f"{tmp_path} is not writable" in err


def test_no_room_on_the_disk_ends_with_one_line_and_keeps_the_checkpoints(tmp_path, monkeypatch, capsys):
    save = checkpoint.save

    def full(folder, number, *args, **options):
        if number >= 12:
            raise OSError(28, "No space left on device")
        return save(folder, number, *args, **options)

    monkeypatch.setattr(checkpoint, "save", full)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert status == 1
    assert err == ("error: No space left on device; what was saved is intact, and --resume goes on from there\n")
    assert [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")] == ["00000000", "00000006"]


def launch(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
    words = [sys.executable, "-m", "tests.support.tiny", "--out", str(folder), "--save-every", "100000", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes)


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_says_how_to_go_on(tmp_path, number, status):
    folder = tmp_path / "run"
    process = launch(folder, "--epochs", "100000", "--sample-every", "100000")
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    second = launch(folder, "--resume")  # while the first is at work
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert "another process is working on this run" in err
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    announced, stopped = err.splitlines()
    assert announced.startswith("stopping: saving after the current step")
    said = re.fullmatch(r"stopped and saved after (\d+) epochs and (\d+) steps; to go on: (.*)", stopped)
    assert said
    assert said[3] == f"{sys.executable} -m tests.support.tiny --out {folder} --resume"
    newest = checkpoint.numbered(folder / "checkpoints")[-1]
    assert checkpoint.verify(newest)["epoch"] == int(said[1])
    going_on = launch(folder, "--resume", "--epochs", str(int(said[1]) + 2))
    out, err = going_on.communicate(timeout=60)
    assert (going_on.returncode, err) == (0, "")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, int(said[1]) + 3))


def test_a_signal_is_not_lost_where_python_drops_exceptions(monkeypatch, capsys):
    """As in a callback of the garbage collection: what it raises is dropped, and the command would go on."""

    def once(phase, info):
        gc.callbacks.remove(once)
        signal.raise_signal(signal.SIGTERM)

    def main(config):
        gc.callbacks.append(once)
        gc.collect()
        time.sleep(30)

    began = time.monotonic()
    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out) == (143, "")
    assert err.startswith("stopped; what was saved is intact")
    assert err.count("\n") == 1
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("caught", "made"),
    [
        # As JAX does while it starts a backend, and where it reads a compiled program from its cache.
        (Exception, RuntimeError("Unable to initialize backend")),
        # As a module in C does of whatever reaches it while it is imported, such as Matplotlib's ft2font.
        (BaseException, ImportError("initialization failed")),
    ],
)
def test_a_signal_is_not_lost_where_a_library_catches_exceptions(monkeypatch, capsys, caught, made):
    def main(config):
        try:
            signal.raise_signal(signal.SIGTERM)
        except caught as error:
            raise made from error

    status, out, err = call(monkeypatch, capsys, experiment=SimpleNamespace(main=main, Config=tiny.Config))
    assert (status, out) == (143, "")
    assert err.startswith("stopped; what was saved is intact")
    assert err.count("\n") == 1


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    folder = tmp_path / "run"
    process = launch(folder, "--epochs", "100000", "--sample-every", "100000")
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.send_signal(signal.SIGSTOP)  # so that both are pending when it looks
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in {130, -signal.SIGINT}
