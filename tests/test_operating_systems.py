"""File systems, users and streams that differ from a workstation's: one line, or no matter, and never a traceback."""

import errno
import fcntl
import logging
import os
import pwd
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

from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, vae_mnist
from jaxgen import InputError, compilation, data, durable
from jaxgen.runs import checkpoint, lock, outputs
from tests.support import tiny
from tests.test_runs import ROOT, call, contents, snapshot

pytestmark = pytest.mark.unoptimized

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

REFUSING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }

int fsync(int file) {
  struct stat about;
  if (fstat(file, &about) == 0) {
    int refused = number(S_ISDIR(about.st_mode) ? "FSYNC_FOLDER" : "FSYNC_FILE");
    if (refused) { errno = refused; return -1; }
  }
  return syscall(SYS_fsync, file);
}

/* Locks are refused but for the first, which is the run's own. */
int flock(int file, int operation) {
  static int calls = 0;
  if (number("NO_LOCKS") && calls++) { errno = number("NO_LOCKS"); return -1; }
  return syscall(SYS_flock, file, operation);
}

#define CONTROL(name) int name(int file, int command, ...) { \
  va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
  int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW; \
  if (locks && number("NO_LOCKS")) { errno = number("NO_LOCKS"); return -1; } \
  return syscall(SYS_fcntl, file, command, argument); }
CONTROL(fcntl)
CONTROL(fcntl64)
"""


@pytest.fixture(scope="module")
def refusing(tmp_path_factory) -> Path:
    """A library that is preloaded before the system's, and refuses what the environment says."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    if sys.platform != "linux":
        pytest.skip("preloads as Linux does")
    folder = tmp_path_factory.mktemp("preloaded")
    (folder / "refusing.c").write_text(REFUSING)
    words = [COMPILER, "-shared", "-fPIC", "-o", folder / "refusing.so", folder / "refusing.c"]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "refusing.so"


def start(
    *arguments: object, module: str = "tests.support.tiny", **surroundings: object
) -> subprocess.CompletedProcess:
    compiled = str(jax.config.jax_compilation_cache_dir)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": compiled} | {k: str(v) for k, v in surroundings.items()}
    words = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_file_system_that_cannot_sync_folders_does_not_matter(tmp_path, refusing):
    """TensorStore, under Orbax, syncs folders itself, which patching `os.fsync` does not reach."""
    done = start("--out", tmp_path / "run", "--epochs", "2", LD_PRELOAD=refusing, FSYNC_FOLDER=errno.EINVAL)
    assert (done.returncode, done.stderr) == (0, "")
    tiny.main(tiny.Config(out=tmp_path / "usual", epochs=2))
    assert contents(tmp_path / "run") == contents(tmp_path / "usual")


def test_a_file_that_cannot_be_synced_ends_the_run(tmp_path, refusing):
    done = start("--out", tmp_path / "run", "--epochs", "2", LD_PRELOAD=refusing, FSYNC_FILE=errno.EIO)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Input/output error" in done.stderr


def test_what_tensorstore_says_reaches_the_user(tmp_path, refusing):
    folder = tmp_path / ("long-" * 40)
    done = start("--out", folder, "--epochs", "2", LD_PRELOAD=refusing, NO_LOCKS=errno.ENOSYS)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "Failed to acquire lock on file" in done.stderr
    assert "Function not implemented" in done.stderr


def test_what_tensorstore_says_is_said_once_and_without_its_settings(tmp_path, monkeypatch):
    """Other writes end after the failed one, and raise where nobody catches it."""
    others = []
    monkeypatch.setattr(sys, "unraisablehook", others.append)  # which a failed save changes
    asyncio_log = logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio_log, "filters", [*asyncio_log.filters])
    said = f"""Error writing "{tmp_path}/state/a": Not allowed [os_error_code='1'] [tensorstore_spec='{{"a": 1}}']"""

    def save():
        with checkpoint._one_os_error(tmp_path):
            raise ValueError(said)

    with pytest.raises(OSError, match=r"""written: Error writing "state/a": Not allowed \[os_error_code='1'\]: '"""):
        save()
    for text in ("Event loop is closed", "something else"):
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(other.exc_value) for other in others] == ["something else"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_only_folders_need_not_be_synced(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_text("content")
    monkeypatch.setattr(os, "fsync", refuse)
    durable.sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        durable.sync(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_folder_on_a_failing_disk_is_an_error(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        durable.sync(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP], ids=str)
def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch, capsys, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.locked(tmp_path / "run", tmp_path / "run" / ".lock"):
        (tmp_path / "run" / "config.json").touch()
    said = f"{tmp_path / 'run'}: this file system has no locks; do not start another process on this run\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN], ids=str)
def test_a_lock_that_is_held_is_another_process(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(InputError, match="another process is working on this run"),
        lock.locked(tmp_path, tmp_path / "l"),
    ):
        pass


def test_a_folder_in_which_nothing_was_written_is_removed_again(tmp_path):
    folder = tmp_path / "a" / "b"
    with lock.locked(folder, folder / ".lock"):
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True)
    with lock.locked(folder, folder / ".lock"):
        pass
    assert folder.exists(), "it was there before"


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    status, out, err = call(monkeypatch, capsys, "--out", name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the name of this folder is not UTF-8; name another with --out" in err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """A container's user: without HOME and unknown to the system."""

    def unknown(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "JAXGEN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_trains(tmp_path):
    assert data.load("digits").images.shape == (1797, 8, 8, 1)
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert tiny.main(tiny.Config(out=tmp_path / "run", epochs=1)).history["loss"]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("name", ["folder:~/pictures", "folder:~nosuchuser/pictures", "arrays:~/mine.npz"])
def test_a_home_that_is_not_there_is_named(tmp_path, monkeypatch, capsys, name):
    arguments = ["--data", name, "--out", str(tmp_path / "run")]
    status, out, err = call(monkeypatch, capsys, *arguments, experiment=conv_autoencoder)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{name}: there is no home folder ~" in err
    assert err.endswith("; give the path in full\n")


@pytest.mark.parametrize("arguments", [[], ["--device", "cpu"]], ids=str)
def test_a_platform_that_is_not_there(tmp_path, arguments):
    done = start("--out", tmp_path / "run", *arguments, JAX_PLATFORMS="cuda")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "JAX cannot start, because JAX_PLATFORMS is 'cuda'; unset it, or set it to cpu" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("{} --epochs 0 >&- 2>&-", 2),
        ("{} --epochs 0 2>/dev/full", 2),
        ("{} --help >/dev/full", 2),
        ("{} --help >&-", 0),
    ],
)
def test_streams_that_are_closed_or_full_do_not_change_the_exit_status(line, status):
    line = line.format(f"{sys.executable} -m tests.support.tiny")
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status
    assert done.stderr.count("\n") <= 1


SUGGESTED = {
    "an unknown option": (conv_autoencoder, ["--learning_rat", "3"], "did you mean --learning-rate?"),
    "an unknown data set": (dcgan_mnist, ["--data", "MNIST"], "there is no data set 'MNIST': did you mean mnist?"),
    "no GPU": (dcgan_digits, ["--device", "gpu"], "for an NVIDIA GPU install jaxgen[cuda12]"),
    "a large batch": (
        dcgan_digits, ["--batch-size", "1798"],
        "--batch-size 1798: there are only 1,797 images or windows to train on; --batch-size 1797 is the most",
    ),
    "a size": (
        conv_autoencoder, ["--size", "56", "x"],
        "--size 56 x: must be a height and a width in whole numbers, or one number for both",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SUGGESTED)
def test_messages_say_what_would_be_right(tmp_path, monkeypatch, capsys, case):
    experiment, arguments, said = SUGGESTED[case]
    status, out, err = call(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "run"), experiment=experiment)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_samples_of_a_run_that_is_read_only_go_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    config = dcgan_digits.Config(out=folder, epochs=1, batch_size=9, frame_every=9)
    dcgan_digits.main(config, data=images)
    before = snapshot(folder)
    write = durable.write

    def read_only(path, content):
        if path.is_relative_to(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        write(path, content)

    monkeypatch.setattr(outputs, "write", read_only)
    arguments = ["--sample", "3", "--out", str(folder)]
    capsys.readouterr()
    status, out, err = call(monkeypatch, capsys, *arguments, experiment=dcgan_digits)
    assert (status, out) == (2, "")
    said = f"{folder / 'samples'} cannot be written (Permission denied); --samples-out names another folder"
    assert err == f"error: {said}\n"
    elsewhere = tmp_path / "elsewhere"
    status, out, err = call(monkeypatch, capsys, *arguments, "--samples-out", str(elsewhere), experiment=dcgan_digits)
    assert (status, err) == (0, "")
    assert {path.name for path in elsewhere.iterdir()} == {"3_of_seed_0.png", "3_of_seed_0.npy", "raw"}
    assert snapshot(folder) == before


def test_morphs_can_go_elsewhere_too():
    assert vae_mnist.Config(samples_out="x").samples_out == Path("x")


def test_the_cache_of_compiled_programs_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compilation, "_LARGEST_DISK_CACHE", 2500)
    folder = tmp_path / "jaxgen" / "compiled"
    folder.mkdir(parents=True)
    for number, name in enumerate(("oldest", "older", "newer", "newest")):
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (1e9 + number, 1e9 + number))
    os.utime(folder / "oldest", (1.5e9, 1e9))  # was read since
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with compilation.disk_cache():
            assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
            assert {path.name for path in folder.iterdir()} == {"oldest", "newest", ".checked"}
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


ENTERED = """
import sys
from jaxgen.runs import command
from tests.support import tiny

module = sys.modules[command.__module__]
stop_anywhere = module._stop_anywhere

def entered(*arguments):
    stop_anywhere(*arguments)
    print("entered", flush=True)

module._stop_anywhere = entered
command(tiny.main, tiny.Config)
"""


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3, 1.0])
def test_two_signals_at_any_time_end_the_command_with_the_first_ones_status(tmp_path, delay):
    """Also during the imports that the command makes, and while Python itself ends."""
    words = [
        sys.executable,
        "-c",
        ENTERED,
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "100000",
        "--sample-every",
        "1000",
    ]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "entered\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert err.splitlines()[-1].startswith("stopped")
    assert "Traceback" not in err
    assert "Exception ignored" not in err
