"""Data that do not fit on the device: the same training, bit for bit, from memory and from disk."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import memory, parallel, staging, training
from jaxgen.errors import InputError
from jaxgen.models import completion
from jaxgen.ondisk import DiskArray
from jaxgen.runs.record import digest
from tests.support import tiny
from tests.test_training import same_bits

COUNT, BATCH = 23, 4  # five full batches and one of three
ROWS = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 1), np.uint8)
LABELS = np.arange(COUNT, dtype=np.int32) % 3


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of two batches of `ROWS`, and of fewer of larger examples."""
    monkeypatch.setattr(staging, "PIECE_BYTES", 2 * BATCH * ROWS[0].nbytes)


@pytest.fixture
def on_disk(tmp_path):
    """Makes an array on disk of one in memory. It begins somewhere within its file."""

    def make(array: np.ndarray) -> DiskArray:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
        path.write_bytes(b"before " + array.tobytes() + b" after")
        return DiskArray(path, 7, array.shape, array.dtype)

    return make


def recipe(width: int = 3) -> training.Recipe:
    """Gradient descent on the distance of a vector from all leaves of the batch."""

    def update(params, batch, noise):
        def error(params):
            leaves = [leaf.reshape(len(leaf), -1)[:, :width] for leaf in jax.tree.leaves(batch)]
            return sum(
                jnp.square(params[: leaf.shape[1]] - leaf - 0.1 * noise[:, : leaf.shape[1]]).mean() for leaf in leaves
            )

        loss, gradient = parallel.mean_over_shards(jax.value_and_grad(error)(params))
        return params - 0.1 * gradient, {"loss": (loss, jnp.ones_like(loss))}

    def init(key, weights=None):
        return jax.random.normal(key, (width,))

    return training.Recipe(init, lambda key, size: jax.random.normal(key, (size, width)), update, lambda state: state)


def loop_over(source, data_on, devices=()):
    loop = training.Loop(recipe(), source, BATCH, devices, data_on)
    assert loop.data_on == data_on
    return loop


def slices(loop, *, seconds=0.0, start=None):
    """All slices of two epochs, with the carry on the host, from the beginning or from a slice on."""
    carry = loop.initial(jax.random.key(0)) if start is None else jax.tree.map(jnp.array, start.carry)
    position = {} if start is None else {"epoch": start.epoch, "step": start.step}
    made = loop.slices(carry, epochs=2, key=jax.random.key(1), seconds=seconds, **position)
    return [each._replace(carry=jax.tree.map(np.array, each.carry)) for each in made]


def test_training_has_the_same_bits_from_memory_and_from_disk(on_disk):
    stored = on_disk(ROWS)
    resident = slices(loop_over(training.as_source(ROWS), "device"))
    for data, data_on in [(ROWS, "host"), (jnp.asarray(ROWS), "host"), (stored, "host"), (stored, "disk")]:
        loop = loop_over(training.as_source(data), data_on)
        pieces = slices(loop)
        assert [each[:2] for each in pieces] == [each[:2] for each in resident]
        assert all(same_bits(one.carry, other.carry) for one, other in zip(pieces, resident, strict=True))
        assert [each.metrics for each in pieces] == [each.metrics for each in resident]
    np.testing.assert_array_equal(loop.batch(jnp.array([5, 3])), ROWS[[5, 3]])
    long = slices(loop, seconds=1e9)
    assert len(long) < len(resident)
    assert same_bits(long[-1].carry, resident[-1].carry)
    for cut in resident[:-1]:  # also in the middle of an epoch and of a piece
        assert same_bits(slices(loop, start=cut)[-1].carry, resident[-1].carry)


def test_devices_that_share_batches_compute_the_same_bits_from_disk(on_disk):
    source, two = training.as_source(on_disk(ROWS)), jax.devices()[:2]
    resident, pieces = (slices(loop_over(source, data_on, two))[-1] for data_on in ("device", "disk"))
    assert same_bits(resident.carry, pieces.carry)


@pytest.mark.parametrize(
    "make",
    [
        lambda images: jaxgen.scaled(images, -1, 1, labels=LABELS),
        lambda images: completion.windows(images, 4),
        lambda images: training.as_source((images[:] / np.float32(255), LABELS.astype(np.float32))),
    ],
    ids=["scaled with labels", "windows", "tree"],
)
def test_sources_have_the_same_bits_in_pieces(on_disk, make):
    resident = slices(loop_over(make(IMAGES), "device"))[-1]
    source = make(on_disk(IMAGES))
    pieces = slices(loop_over(source, "disk" if "DiskArray" in repr(source.arrays) else "host"))[-1]
    assert same_bits(pieces.carry, resident.carry)
    assert pieces.metrics == resident.metrics


def test_fit_reads_a_memory_map_from_its_file(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert isinstance(training.as_source({"x": mapped}).arrays["x"], DiskArray)
    options = {"epochs": 2, "batch_size": BATCH, "key": jax.random.key(1)}
    fitted = [
        jaxgen.fit(recipe(), jnp.zeros(3), data, data_on=data_on, **options)
        for data, data_on in [(mapped, "disk"), (ROWS, "auto")]
    ]
    assert same_bits(*(state for state, _ in fitted))
    assert fitted[0][1] == fitted[1][1]


def test_the_place_is_chosen_by_what_is_free(on_disk, monkeypatch):
    stored, size = on_disk(ROWS), ROWS.nbytes

    def chosen(arrays, free, free_on_device, can_be_cut=True):
        monkeypatch.setattr(memory, "available", lambda: free)
        monkeypatch.setattr(memory, "available_on", lambda device: free_on_device)
        return staging.choose("auto", arrays, can_be_cut)

    assert chosen(stored, 2 * size, 2 * size) == "device"
    assert chosen(stored, 2 * size, size) == "host"
    assert chosen(stored, size, 2 * size) == "disk"
    assert chosen(stored, size, size, can_be_cut=False) == "device"
    assert chosen(ROWS, 0, 2 * size) == "device"  # it is in memory already
    assert chosen(ROWS, 0, size) == "host"
    assert chosen((jnp.asarray(ROWS), LABELS), 0, size) == "device"  # where most of it is already


def test_impossible_places_are_refused(on_disk):
    uncut = training.Source(ROWS, COUNT, lambda arrays, rows: arrays[rows])
    for source, data_on, message in [
        (training.as_source(ROWS), "disk", "the data are in memory"),
        (uncut, "host", "the data cannot be kept on the host: their source has no `piece`"),
        (uncut._replace(arrays=on_disk(ROWS)), "disk", "the data cannot be kept on the disk"),
    ]:
        with pytest.raises(InputError, match=message):
            training.Loop(recipe(), source, BATCH, data_on=data_on)
    with pytest.raises(InputError, match=f"the source has {COUNT + 1} examples by its size"):
        training.Loop(recipe(), uncut._replace(size=COUNT + 1), BATCH)
    windows = completion.windows(on_disk(IMAGES), 4)
    too_long = windows._replace(batch=lambda arrays, rows: windows.batch(arrays, rows + 2))
    with pytest.raises(InputError, match="but not by its batch function"):
        training.Loop(recipe(), too_long, BATCH, data_on="disk")


def test_a_run_refuses_an_impossible_place_before_it_begins(tmp_path):
    with pytest.raises(InputError, match=r"^data_on='disk': the data are in memory"):
        tiny.main(tiny.Config(out=tmp_path / "run", data_on="disk"))
    assert not (tmp_path / "run").exists()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("jaxgen-data")]


def test_a_failing_disk_is_reported_and_the_thread_ends(on_disk):
    stored = on_disk(ROWS)
    loop = training.Loop(recipe(), training.as_source(stored), BATCH, data_on="disk")
    pieces = loop.slices(loop.initial(jax.random.key(0)), epochs=99, key=jax.random.key(1), seconds=0)
    next(pieces)
    assert len(threads()) == 1
    stored.path.write_bytes(b"short")
    with pytest.raises(OSError, match="the file has become shorter") as caught:
        list(pieces)
    assert caught.value.filename == str(stored.path)
    assert not threads()


def test_the_thread_ends_with_the_training():
    loop = training.Loop(recipe(), training.as_source(ROWS), BATCH, data_on="host")
    pieces = loop.slices(loop.initial(jax.random.key(0)), epochs=9, key=jax.random.key(1), seconds=0)
    next(pieces)
    assert len(threads()) == 1
    pieces.close()
    assert not threads()

    def fail(_):
        raise KeyError

    with pytest.raises(KeyError):
        jaxgen.fit(
            recipe(), jnp.zeros(3), ROWS, epochs=9, batch_size=BATCH, key=jax.random.key(1), data_on="host", each=fail
        )
    assert not threads()


def test_arrays_on_disk_are_indexed_as_arrays(on_disk):
    stored = on_disk(IMAGES)
    chosen = np.array([3, 1, 1, 22])
    for index in (
        0,
        -1,
        np.int64(5),
        slice(2, 9),
        slice(None, None, -2),
        chosen,
        LABELS == 1,
        (chosen, 2),
        (slice(3), 1, 2),
    ):
        np.testing.assert_array_equal(stored[index], IMAGES[index])
    np.testing.assert_array_equal(np.asarray(stored), IMAGES)
    np.testing.assert_array_equal(np.stack(list(stored)), IMAGES)
    assert (len(stored), stored.ndim, stored.nbytes) == (COUNT, 4, IMAGES.nbytes)
    for some in (LABELS != 1, np.array([2, 3, 7])):
        view = stored.rows(some)
        np.testing.assert_array_equal(view[1:], IMAGES[some][1:])
        np.testing.assert_array_equal(view.rows(np.array([0, 2]))[:], IMAGES[some][[0, 2]])
        assert digest(view) == digest(IMAGES[some])
    assert digest((stored, LABELS)) == digest((IMAGES, LABELS)) != digest((IMAGES, LABELS + 1))
    with pytest.raises(IndexError):
        stored[COUNT]
    with pytest.raises(OSError, match="shorter than its array"):
        DiskArray(stored.path, 1000, stored.shape, stored.dtype)
