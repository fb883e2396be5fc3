"""Compiled programs are shared by what they compute, and never keep data alive."""

import ctypes
import gc
import os
import re
import subprocess
import sys
import time
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import compilation, training
from jaxgen.compilation import compiled
from jaxgen.from_loss import recipe_from_loss
from jaxgen.models import completion
from jaxgen.training import Source
from tests.support import tiny
from tests.test_training import line_recipe, rows

ROOT = Path(__file__).parent.parent
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """The durations of all compilations from here on."""
    found = []

    def listen(event, duration, **_):
        if event == COMPILED:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def fit(recipe=None, data=None, **options):
    recipe = recipe or line_recipe()
    data = rows().astype(np.float32) if data is None else data
    state = recipe.init(jax.random.key(0))
    return jaxgen.fit(recipe, state, data, epochs=1, batch_size=4, key=jax.random.key(1), **options)


def test_a_second_main_compiles_nothing_and_begins_within_a_second(tmp_path, compilations, monkeypatch):
    tiny.main(tiny.Config(out=tmp_path / "first", epochs=2))
    assert compilations
    compilations.clear()
    first_step = []
    slices = training.Loop.slices

    def watched(self, *arguments, **options):
        for piece in slices(self, *arguments, **options):
            first_step.append(time.process_time())
            yield piece

    monkeypatch.setattr(training.Loop, "slices", watched)
    began = time.process_time()  # of this process, however busy the machine is
    tiny.main(tiny.Config(out=tmp_path / "second", epochs=2))
    assert compilations == []
    assert first_step[0] - began < 1


def test_a_second_fit_with_a_recipe_made_anew_compiles_nothing(compilations):
    fit(line_recipe())
    compilations.clear()
    fit(line_recipe())
    assert compilations == []


@pytest.mark.parametrize(
    "make",
    [
        lambda images: jaxgen.scaled(images, -1, 1),
        lambda images: jaxgen.scaled(images, white=16, labels=np.arange(len(images))),
        lambda images: completion.windows(images, 3),
        lambda images: Source(images, len(images), lambda arrays, rows: arrays[rows] / 2),  # whose rows are checked
    ],
    ids=["scaled", "labels", "windows", "own"],
)
def test_sources_made_anew_share_programs(compilations, make):
    def recipe():
        def update(state, batch, noise):
            return state, {"mean": (sum(leaf.mean() for leaf in jax.tree.leaves(batch)), jnp.ones(()))}

        return training.Recipe(lambda key: jnp.zeros(()), lambda key, size: (), update, lambda state: state)

    images = np.random.default_rng(0).integers(0, 255, (6, 4, 5, 1), np.uint8)
    fit(recipe(), make(images))
    compilations.clear()
    fit(recipe(), make(images.copy()))
    assert compilations == []


def test_batch_functions_compare_by_value():
    images = np.zeros((6, 4, 5, 1), np.uint8)
    assert jaxgen.scaled(images, -1, 1).batch == jaxgen.scaled(images, -1, 1).batch
    assert jaxgen.scaled(images, -1, 1).batch != jaxgen.scaled(images, 0, 1).batch
    assert completion.windows(images, 2).batch == completion.windows(images, 2).batch
    assert completion.windows(images, 2).batch != completion.windows(images, 3).batch


def test_init_compiles_once_for_equal_modules(compilations):
    for key in range(2):
        compilations.clear()
        recipe_from_loss(tiny.Mean(), optax.adam(1e-3), lambda *_: None).init(jax.random.key(key))
    assert compilations == []


def test_different_programs_are_not_mixed_up():
    """Also where only a constant, the precision or the structure of a result differs."""
    x = jnp.ones((2, 2))
    doubled, tripled = (compiled(jax.jit(lambda x, factor=factor: x * factor), x) for factor in (2.0, 3.0))
    assert (float(doubled(x).sum()), float(tripled(x).sum())) == (8.0, 12.0)
    constants = [np.full((2, 2), value, np.float32) for value in (1.0, 2.0)]
    sums = [compiled(jax.jit(lambda x, constant=constant: x + constant), x)(x).sum() for constant in constants]
    assert list(map(float, sums)) == [8.0, 12.0]
    assert compiled(jax.jit(lambda x: (x,)), x)(x)[0].shape == (2, 2)
    assert compiled(jax.jit(lambda x: [x]), x)(x)[0].shape == (2, 2)
    function = jax.jit(jnp.dot)
    plain = compiled(function, x, x)
    with jax.default_matmul_precision("highest"):
        assert compiled(function, x, x) is not plain


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray], ids=["jax", "numpy"])
def test_deleting_a_source_frees_the_arrays_that_it_closes_over(kind):
    def weakly_held() -> weakref.ref:
        big = kind(np.random.default_rng(0).normal(size=(64, 3, 20_000)).astype(np.float32))  # 15 MB
        fit(data=Source(np.arange(64), 64, lambda arrays, rows: jnp.asarray(big)[arrays[rows]].mean(-1)))
        return weakref.ref(big)

    held = weakly_held()
    gc.collect()
    assert held() is None


def test_data_are_freed_with_their_source():
    def weakly_held() -> weakref.ref:
        data = jnp.asarray(rows(), jnp.float32)
        fit(data=data)
        return weakref.ref(data)

    held = weakly_held()
    gc.collect()
    assert held() is None


def run_with_cache_in(folder, code, *words):
    """Run Python code in a process of its own that keeps compiled programs in this folder."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    words = [sys.executable, "-c", code, *words]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_fit_keeps_programs_on_disk_and_nothing_else_does(tmp_path):
    """JAX decides at its first compilation whether it does, and here that comes before `fit`."""
    code = """
import os, sys
import jax, jax.numpy as jnp
from pathlib import Path
from tests.test_compilation import fit
folder = Path(os.environ["XDG_CACHE_HOME"]) / "jaxgen" / "compiled"
def kept():
    return {path.name.split("-")[0] for path in folder.glob("*-cache")} if folder.exists() else set()
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
jax.jit(lambda x: jnp.sin(x) + 3)(1.0)
assert not kept() or sys.argv[1] == "again", kept()
fit()
assert {"jit_make", "jit__advance"} <= kept(), kept()
before = kept()
def afterwards(x):
    return jnp.sin(x) + 4
jax.jit(afterwards)(1.0)
assert kept() == before and jax.config.jax_compilation_cache_dir is None
print(events.count("cache_misses"))
"""
    misses = []
    for time_ in ("first", "again"):
        done = run_with_cache_in(tmp_path, code, time_)
        assert done.returncode == 0, done.stderr
        misses.append(int(done.stdout))
    assert misses[0] > 0
    assert misses[1] == 0


@pytest.mark.parametrize("damage", ["truncated", "empty and old"])
def test_a_damaged_program_on_disk_is_made_again(tmp_path, damage):
    """JAX itself would warn of it at every start, and compile every time."""

    def start():
        done = run_with_cache_in(tmp_path, "from tests.test_compilation import fit; fit()")
        assert (done.returncode, done.stderr) == (0, "")

    start()
    entry = next((tmp_path / "jaxgen" / "compiled").glob("jit__advance-*-cache"))
    others = {path: path.stat().st_mtime_ns for path in entry.parent.glob("*-cache") if path != entry}
    content = entry.read_bytes()
    if damage == "truncated":
        entry.write_bytes(content[: len(content) // 2])
    else:
        entry.write_bytes(b"")
        os.utime(entry, (0, 0))
    start()
    assert compilation._is_complete(entry.read_bytes())
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_what_another_python_has_compressed_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert compilation._is_complete(compilation._ZSTANDARD + b"anything")
    assert not compilation._is_complete(b"anything")


def test_a_loop_does_not_copy_the_state_of_its_optimizer():
    adam, x, params = optax.adam(0.1), jnp.ones((8, 64)), [jnp.ones((64, 64)), jnp.ones((64, 32))]

    def loss(params):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params[0]) @ params[1]) ** 2)

    def steps(state, stop):
        def step(_, state):
            params, moments = state
            return training.descend(adam, jax.grad(loss)(params), moments, params)

        return jax.lax.fori_loop(0, stop, step, state)

    def copies(program):
        return re.findall(r"= f32\[64,\d+\]\S* copy\(", program.as_text())

    function, arguments = jax.jit(steps, donate_argnums=0), ((params, adam.init(params)), 3)
    assert copies(function.lower(*arguments).compile())
    assert not copies(compiled(function, *arguments))


def test_an_option_that_xla_has_no_more_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_OPTIONS", {"xla_cpu_no_such_option": True})
    assert compiled(jax.jit(lambda x: x + 7), 1)(1) == 8


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="only glibc gives memory back on demand",
)
def test_memory_that_the_compiler_has_freed_is_given_back():
    program = """
import ctypes, jax, jax.numpy as jnp, psutil
from jaxgen.compilation import compiled

def long(x):
    for n in range(300):
        x = jnp.sin(x * n) + x[::-1]
    return x

jax.config.update("jax_enable_compilation_cache", False)
compiled(jax.jit(long), jnp.ones(8))
resident = psutil.Process().memory_info().rss
ctypes.CDLL(None).malloc_trim(0)
print(resident - psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1 << 20


def test_the_garbage_collector_of_a_command_leaves_alone_what_was_imported_and_what_is_traced():
    program = """
import gc
from jaxgen.runs.command import Remedies, as_process

def work():
    if not gc.get_freeze_count() > 50_000 > len(gc.get_objects()):
        return 1
    before = sum(generation["collections"] for generation in gc.get_stats())
    made = [[] for _ in range(50_000)]
    collected = sum(generation["collections"] for generation in gc.get_stats()) - before
    return 1 if collected else 0

as_process(work, Remedies("", "", ""))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
