"""The event log for TensorBoard, read back with the package that wrote it."""

import json
import shutil
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

import jaxgen
from jaxgen import runs
from tests.support import tiny


def events(run) -> list[Event]:
    """The events of a run: records of a length, its checksum, the event and its checksum."""
    (file,) = (run / "tensorboard").iterdir()
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def scalars(run) -> dict[tuple[str, int], float]:
    found = [(value.tag, event.step, value) for event in events(run) for value in event.summary.value]
    named = [(tag, step, value.simple_value) for tag, step, value in found if not value.HasField("image")]
    assert len({(tag, step) for tag, step, _ in named}) == len(named), "written twice"
    return {(tag, step): value for tag, step, value in named}


def logged(run) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(name, line["epoch"]): value for line in lines for name, value in line.items() if name != "epoch"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    tiny.main(tiny.Config(out=folder, epochs=4, keep=9, tensorboard=True))
    return folder


def same(found, wanted) -> bool:
    return found.keys() == wanted.keys() and all(np.isclose(found[key], wanted[key], rtol=1e-6) for key in wanted)


def test_event_log_has_every_metric_and_figure(run):
    figures = json.loads((run / "final" / "figures.json").read_text()) if (run / "final/figures.json").exists() else {}
    wanted = logged(run) | {(f"figures/{name}", 4): figure["value"] for name, figure in figures.items()}
    found = scalars(run)
    assert same({key: value for key, value in found.items() if key in wanted}, wanted)


def test_event_log_has_every_picture_once(run):
    found = [(value.tag, event.step, value.image) for event in events(run) for value in event.summary.value]
    sizes = {(tag, step): (image.width, image.height) for tag, step, image in found if image.height}
    files = {(path.stem, int(path.parent.name)): path for path in run.glob("epochs/*/*.png")}
    files |= {(path.stem, 4): path for path in run.glob("final/*.png")}
    assert files
    for key, path in files.items():
        with Image.open(path) as image:
            assert sizes.pop(key) == image.size
    assert not sizes


def test_a_resumed_run_has_no_event_twice(run, tmp_path):
    """Nor one that is later than its checkpoint and was not repeated."""
    shutil.copytree(run, tmp_path / "run")
    newest = sorted(path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal())[-1]
    shutil.rmtree(newest)
    tiny.main(tiny.Config(out=tmp_path / "run", resume=True, epochs=5))
    assert {epoch for _, epoch in logged(tmp_path / "run")} == {1, 2, 3, 4, 5}
    found = scalars(tmp_path / "run")
    assert same({key: value for key, value in found.items() if "/" not in key[0]}, logged(tmp_path / "run"))


def test_a_run_without_the_option_has_no_event_log(tmp_path):
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=1))
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_the_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(jaxgen.InputError, match=r"tensorboard=True.*pip install 'jaxgen\[tensorboard\]'"):
        tiny.main(tiny.Config(out=tmp_path / "run", epochs=1, tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_failing_event_log_does_not_end_the_run(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboardX.SummaryWriter.add_scalar", fail)
    outcome = tiny.main(tiny.Config(out=tmp_path / "run", epochs=1, tensorboard=True))
    assert any("the event log" in said for said in outcome.failures)
    assert runs.Layout(tmp_path / "run").read_finished() is not None
