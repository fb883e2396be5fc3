"""Checkpoints: what is acknowledged is complete, and damage is detected."""

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxgen.runs import checkpoint

pytestmark = pytest.mark.unoptimized

TREE = {
    "state": (jnp.arange(6.0).reshape(2, 3), optax.adam(1e-3).init({"w": jnp.ones((4, 5))})),
    "sums": {"loss": (jnp.float32(3.5), jnp.float32(2))},
    "bad_step": jnp.int32(-1),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    return checkpoint.save(folder, 12, TREE, {"epoch": 3, "seconds": 0.25}, keep=3)


def abstract(tree):
    return jax.eval_shape(lambda: tree)


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_restore_returns_what_was_saved(saved):
    assert saved.name == "00000012"
    assert checkpoint.verify(saved) == {"epoch": 3, "seconds": 0.25}
    restored = checkpoint.restore(saved, abstract(TREE))
    assert jax.tree.structure(restored) == jax.tree.structure(TREE)
    assert same(restored, TREE)


def test_partial_restore(saved):
    part = checkpoint.restore(saved, {"state": abstract(TREE["state"])})
    assert same(part["state"], TREE["state"])


def test_keep_deletes_old_checkpoints_only(tmp_path):
    (tmp_path / "notes").mkdir()
    for number in (0, 5, 10):
        checkpoint.save(tmp_path, number, {"a": jnp.ones(3)}, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000005", "00000010", "notes"]


def test_saving_a_number_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        path = checkpoint.save(tmp_path, 7, {"a": jnp.full(3, value)}, {"value": value}, keep=2)
    assert checkpoint.verify(path) == {"value": 2.0}
    assert [path.name for path in checkpoint.numbered(tmp_path)] == ["00000007"]


def damage(path: Path, chance: random.Random) -> str:
    victim = chance.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    content = bytearray(victim.read_bytes())
    kind = chance.choice(["flip", "cut", "delete", "add"] if content else ["delete", "add"])
    if kind == "flip":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
    elif kind == "cut":
        victim.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "delete":
        victim.unlink()
    else:
        victim.with_name("unexpected").write_bytes(b"x")
    return f"{kind} {victim.relative_to(path)}"


def test_damage_is_detected(saved, tmp_path):
    chance, copy = random.Random(0), tmp_path / "copy"
    for _ in range(300):
        shutil.copytree(saved, copy)
        what = damage(copy, chance)
        try:
            about = checkpoint.verify(copy)
        except checkpoint.DamagedError:
            pass
        else:
            # A flipped bit in white space of the manifest changes nothing that was saved.
            assert what == "flip manifest.json", what
            assert about == checkpoint.verify(saved), what
        shutil.rmtree(copy)


def test_missing_manifest_is_detected(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(checkpoint.DamagedError, match=r"manifest\.json cannot be read"):
        checkpoint.verify(tmp_path / "copy")


@pytest.mark.parametrize("at", range(60))
def test_save_interrupted_at_any_system_call_loses_nothing(tmp_path, monkeypatch, at):
    """Every acknowledged checkpoint is complete, and the next save succeeds."""
    checkpoint.save(tmp_path, 1, {"a": jnp.ones(3)}, {"epoch": 1}, keep=1)
    calls = 0

    def dying(real):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls > at:
                raise OSError(5, "power cut")
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync", dying(checkpoint.sync))
        for name in ("write_text", "rename", "mkdir"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        try:
            checkpoint.save(tmp_path, 2, {"a": jnp.full(3, 2.0)}, {"epoch": 2}, keep=1)
        except OSError:
            acknowledged = {1, 2}
        else:
            acknowledged = {2}
    newest = checkpoint.numbered(tmp_path)[-1]
    assert checkpoint.verify(newest)["epoch"] in acknowledged
    path = checkpoint.save(tmp_path, 3, {"a": jnp.full(3, 3.0)}, {"epoch": 3}, keep=1)
    assert checkpoint.verify(path) == {"epoch": 3}
    assert [path.name for path in checkpoint.numbered(tmp_path)] == ["00000003"]


def test_manifest_lists_every_file(saved):
    written = json.loads((saved / "manifest.json").read_text())
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert written.keys() == files - {"manifest.json"}


def test_disk_space_is_checked_before_writing(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"a": jnp.ones(3)}, {"epoch": 1}, keep=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1 << 20))
    with pytest.raises(OSError, match="No space left on device") as raised:
        checkpoint.save(tmp_path, 2, {"a": jnp.ones(1 << 18)}, {"epoch": 2}, keep=1)
    assert raised.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    checkpoint.save(tmp_path, 2, {"a": jnp.ones(3)}, {"epoch": 2}, keep=1)


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_orbax_disk_errors_become_os_errors(tmp_path, monkeypatch, number):
    """TensorStore raises a ValueError whose text has the system's message."""
    checkpoint.save(tmp_path, 1, {"a": jnp.ones(3)}, {"epoch": 1}, keep=1)
    real = ocp.Checkpointer.save

    def failing(self, path, *args, **options):
        real(self, path, *args, **options)
        raise ValueError(f"RESOURCE_EXHAUSTED: Failed to write 6655 bytes to file 20: {os.strerror(number)} [source]")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", failing)
        with pytest.raises(OSError, match=os.strerror(number)) as raised:
            checkpoint.save(tmp_path, 2, {"a": jnp.ones(3)}, {"epoch": 2}, keep=1)
    assert raised.value.errno == number
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"], "the incomplete checkpoint is removed"
    assert checkpoint.verify(tmp_path / "00000001") == {"epoch": 1}
