"""Fixtures of all tests. Without PyTorch, the files that compare with it are not collected, and the header says so."""

import importlib.util
import signal
from pathlib import Path

import jax
import pytest
from jax._src import compiler

from jaxgen import compilation, runs

jax.config.update("jax_num_cpu_devices", 4)  # experiments that share their batches use two by default

# Started in the background or under nohup, the tests and the processes that they start would ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)

HAS_TORCH = importlib.util.find_spec("torch") is not None
NEED_TORCH = sorted(path.name for path in Path(__file__).parent.glob("test_*.py") if "torch" in path.read_text())
collect_ignore = [] if HAS_TORCH else NEED_TORCH

if HAS_TORCH:
    import torch

    torch.set_num_threads(1)  # on two cores, its threads would compete with XLA's


def pytest_report_header() -> str:
    return "PyTorch: installed" if HAS_TORCH else f"PyTorch: not installed, so not collected: {', '.join(NEED_TORCH)}"


@pytest.fixture(scope="session")
def without_fusion_emitters():
    """What makes JAX's options for XLA, changed to choose XLA's older code generator, which is quicker than its MLIR.

    JAX has no setting for that which could differ by file. JAX 0.12 no longer has the older one, and keeps its options.
    """
    options_of = getattr(compiler, "get_compile_options", None)
    override = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=override)
    except jax.errors.JaxRuntimeError:  # there is no such option
        return options_of

    def changed(*args, **kwargs):
        options = options_of(*args, **kwargs)
        options.env_option_overrides = [*options.env_option_overrides, *override.items()]
        return options

    return changed


@pytest.fixture(scope="module", autouse=True)
def clear_compiled_programs(request, isolated_caches, without_fusion_emitters):
    """Free what a file's tests compiled: it adds up to gigabytes, and slows down every garbage collection.

    In files marked `unoptimized`, XLA omits most optimizations, so that compiling takes a third of the time. Those
    files are about runs, commands and what is written, and compare results of programs that are compiled alike. Files
    that compare numbers with PyTorch's, or look at what XLA makes of a program, are not among them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("unoptimized"):
            patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for the processes that tests start
            jax.config.update("jax_disable_most_optimizations", True)
            patch.setattr(compiler, "get_compile_options", without_fusion_emitters, raising=False)
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    compilation.forget_programs()
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def isolated_caches(tmp_path_factory):
    """Neither use nor change the user's caches: of data, of compiled programs, of networks that give features.

    The tests share a compilation cache.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # Not the folder that commands use: a command that a test kills may leave an incomplete entry there.
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        patch.setattr("jaxgen.metrics.features._STEPS", 20)  # for the figures of short trainings it is enough
        yield


@pytest.fixture(autouse=True)
def without_quality(request, monkeypatch):
    """Runs do not measure quality, which takes longer than a test's training, except in tests marked `quality`."""
    if request.node.get_closest_marker("quality"):
        return
    results = runs.Run.results

    def of_numbers_alone(self, figures):
        if not callable(figures):
            results(self, figures)

    monkeypatch.setattr(runs.Run, "results", of_numbers_alone)


@pytest.fixture
def float64():
    """Enable float64 in JAX for the test."""
    with jax.enable_x64(True):
        yield
