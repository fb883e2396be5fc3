"""What all tests share. Without PyTorch the tests that compare with it are left out, and the header says so."""

import importlib.util
from pathlib import Path

import jax
import pytest

from jaxgen import compilation

jax.config.update("jax_num_cpu_devices", 4)  # what shares its batches by default takes two of them

HAS_TORCH = importlib.util.find_spec("torch") is not None
NEED_TORCH = sorted(path.name for path in Path(__file__).parent.glob("test_*.py") if "torch" in path.read_text())
collect_ignore = [] if HAS_TORCH else NEED_TORCH

if HAS_TORCH:
    import torch

    torch.set_num_threads(1)  # on two cores its threads and XLA's stand in each other's way


def pytest_report_header() -> str:
    return "PyTorch: compared with" if HAS_TORCH else f"PyTorch: not installed, left out: {', '.join(NEED_TORCH)}"


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What a file's tests compiled takes gigabytes by and by, and time at every garbage collection."""
    yield
    compilation.forget_programs()
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def caches_of_their_own(tmp_path_factory):
    """The user's own data and compiled programs are neither used nor changed. What a test compiles serves the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # In a folder of its own: a command that a test kills may leave half an entry in the commands'.
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield


@pytest.fixture
def float64():
    """The test computes in float64."""
    with jax.enable_x64(True):
        yield
