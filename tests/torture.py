"""python -m tests.torture [CHECK …] [--times N]: checks that take too long for CI.

kill        Sends SIGKILL at random times to short runs that save often, until N runs were hit. After each, every
            checkpoint that the log lists and that should still be kept must be complete, and none may be damaged. A run
            that finishes must equal an undisturbed one bit for bit.
term        The same with SIGTERM; also checks the exit status and the time to stop.
damage      N random bit flips, truncations and deletions in the files of a checkpoint: each must be detected, and the
            previous checkpoint used.
disk        N runs on file systems of 0.1 to 1 MB (needs root to mount them): each must end with one line and status 1,
            and resume to the same result once there is space.
repeat      Trains every recipe for N steps in two processes, on all cores: the results must be equal bit for bit.
fuzz        N seconds of random changes to files that jaxgen reads: IDX, CIFAR, .npz, safetensors, .pth and a
            run's configuration. Each must be read or raise an InputError.

Without names, it runs all checks. It prints one line for each, and exits with status 1 if there were problems.
"""

import argparse
import contextlib
import gzip
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
EPOCHS = 6
KEEP = 3


def tiny_run(folder: Path) -> None:
    """Run the smallest experiment, which saves after every epoch, or resume it."""
    from jaxgen.runs import command
    from tests.support import tiny

    exists = (folder / "config.json").exists()
    sys.argv = ["tiny", "--out", str(folder), "--epochs", str(EPOCHS), *(["--resume"] if exists else [])]
    command(tiny.main, tiny.Config)


def fork(function: Callable[[], None], log: Path) -> int:
    """Call a function in a forked process, which has imported all modules already; its output goes to a file."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        function()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # shown in the log, whatever it is
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """The exit status, or minus the number of the signal that ended the process."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def problems_of(folder: Path) -> list[str]:
    """The problems of the checkpoints of an interrupted run."""
    from jaxgen.runs import checkpoint
    from jaxgen.runs.log import lines

    problems = []
    acknowledged = sorted({line["name"] for line in lines(folder / "events.jsonl") if line["event"] == "checkpoint"})
    there = {path.name: path for path in checkpoint.numbered(folder / "checkpoints")}
    for name in acknowledged:
        if name not in there and sum(other > name for other in there) < KEEP:
            problems += [f"checkpoint {name} is in the log but missing"]
    for path in there.values():
        try:
            checkpoint.verify(path)
        except checkpoint.DamagedError as error:
            problems.append(str(error))
    return problems


def send_signals(times: int, number: signal.Signals, work: Path) -> tuple[str, list[str]]:
    """Send a signal to runs at random times, until `times` of them were hit."""
    from tests.test_runs import contents

    problems: list[str] = []
    log = work / "log"
    undisturbed = work / "undisturbed"
    assert wait(fork(partial(tiny_run, undisturbed), log)) == 0, log.read_text()
    start = time.perf_counter()
    assert wait(fork(partial(tiny_run, work / "again"), log)) == 0
    length = time.perf_counter() - start  # with everything compiled, as in all following runs
    expected = contents(undisturbed)
    hit = finished = 0
    slowest = 0.0
    folder = work / "run0"
    while hit < times:
        child = fork(partial(tiny_run, folder), log)
        time.sleep(random.uniform(0, length))
        sent = time.perf_counter()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        status = wait(child)
        if status == 0:  # it had finished before the signal
            finished += 1
            if contents(folder) != expected:
                problems.append(f"{folder} differs from the undisturbed run")
            folder = work / f"run{finished}"
            continue
        hit += 1
        slowest = max(slowest, time.perf_counter() - sent)
        if number == signal.SIGTERM and status not in (128 + number, -number):
            problems.append(f"exit status {status} after SIGTERM; see {log}")
        if number == signal.SIGKILL and status != -number:
            problems.append(f"exit status {status}; see {log}")
        problems += problems_of(folder)
    if "Traceback" in log.read_text():
        problems.append(f"a traceback in {log}")
    summary = f"{hit} × {number.name}, {finished} runs finished, the slowest stop took {slowest:.2f} s"
    return summary, problems


def kill(times: int, work: Path) -> tuple[str, list[str]]:
    return send_signals(times, signal.SIGKILL, work)


def term(times: int, work: Path) -> tuple[str, list[str]]:
    return send_signals(times, signal.SIGTERM, work)


def damage(times: int, work: Path) -> tuple[str, list[str]]:
    from jaxgen.runs.layout import Layout
    from jaxgen.runs.resume import newest_good

    problems = []
    original = work / "original"
    assert wait(fork(partial(tiny_run, original), work / "log")) == 0
    names = [path.name for path in sorted((original / "checkpoints").iterdir())]
    newest = original / "checkpoints" / names[-1]
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    kinds = {"flip": 0, "cut": 0, "delete": 0}
    for _ in range(times):
        path = random.choice(files)
        content = path.read_bytes()
        kind = random.choice(list(kinds)) if content else "delete"
        kinds[kind] += 1
        if kind == "delete":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(content[: random.randrange(len(content))])
        else:
            changed = bytearray(content)
            changed[random.randrange(len(content))] ^= 1 << random.randrange(8)
            path.write_bytes(bytes(changed))
        found = newest_good(Layout(original))
        if found.checkpoint.name != names[-2] or [bad.name for bad, _ in found.damaged] != names[-1:]:
            problems.append(f"{kind} in {path.relative_to(newest)}: {found.checkpoint.name} was used")
        path.write_bytes(content)
    if newest_good(Layout(original)).checkpoint != newest:
        problems.append("without damage, the newest checkpoint is not used")
    return ", ".join(f"{number} × {kind}" for kind, number in kinds.items()), problems


def disk(times: int, work: Path) -> tuple[str, list[str]]:
    from tests.test_runs import contents

    if os.geteuid() != 0:
        return "skipped: needs root", []
    problems, full = [], 0
    undisturbed = work / "undisturbed"
    assert wait(fork(partial(tiny_run, undisturbed), work / "log")) == 0
    for number in range(times):
        mount = work / f"disk{number}"
        mount.mkdir()
        size = int(random.uniform(0.1, 1) * 2**20)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
        try:
            log = work / f"log{number}"
            status = wait(fork(partial(tiny_run, mount / "run"), log))
            said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
            full += status == 1
            if status not in (0, 1) or len(said) != status or "Traceback" in log.read_text():
                problems.append(f"{size} bytes: exit status {status}; see {log}")
            problems += problems_of(mount / "run")
            subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
            if wait(fork(partial(tiny_run, mount / "run"), log)) != 0:
                problems.append(f"{size} bytes: it does not resume; see {log}")
            elif contents(mount / "run") != contents(undisturbed):
                problems.append(f"{size} bytes: it resumes to another result")
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=True)
    return f"{times} file systems, {full} of them full", problems


def repeat(times: int, work: Path) -> tuple[str, list[str]]:
    """Train each recipe in two processes."""
    from experiments.benchmark.cases import CASES

    problems = []
    for name in CASES:
        words = [sys.executable, "-c", REPEAT, name, str(times)]
        two = [subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
        if two[0] != two[1]:
            problems.append(f"{name}: {two[0].strip()} is not {two[1].strip()}")
    return f"{times} steps of each of {len(CASES)} recipes, twice", problems


REPEAT = """
import hashlib, sys
import jax, numpy as np
from experiments.benchmark.cases import CASES
from experiments.benchmark.images import random_images
from jaxgen import training
from jaxgen.runs.devices import find_devices, provide_cpu_devices

case, steps = CASES[sys.argv[1]](), int(sys.argv[2])
provide_cpu_devices(case.config)
batch_size = case.config.batch_size
source = case.source(random_images((4 * batch_size, *case.shape)))
loop = training.Loop(case.recipe, source, batch_size, find_devices(case.config))
pieces = loop.slices(loop.initial(jax.random.key(0)), epochs=10**9, key=jax.random.key(1))
total = hashlib.sha256()
for piece in pieces:
    if piece.epoch * loop.steps + piece.step >= steps and not piece.step:
        break
for leaf in jax.tree.leaves(piece.carry.state):
    total.update(np.ascontiguousarray(leaf).tobytes())
print(piece.epoch, total.hexdigest())
"""


def fuzz(seconds: int, work: Path) -> tuple[str, list[str]]:
    problems: list[str] = []
    readers = [(path, path.read_bytes(), read) for path, read in readable_files(work)]
    until, tried, refused = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        for path, content, read in readers:
            path.write_bytes(changed(content))
            tried += 1
            try:
                read()
            except Exception as error:
                refused += 1
                if type(error).__name__ != "InputError":
                    kept = work / f"found{len(problems)}-{path.name}"
                    shutil.copy(path, kept)
                    problems.append(f"{type(error).__name__}: {str(error)[:200]}; {kept}")
    return f"{tried:,} files, {refused:,} refused", problems


def readable_files(work: Path) -> list[tuple[Path, Callable[[], object]]]:
    """A valid file for every reader, and a function that reads it."""
    import jax
    import numpy as np
    import torch

    from jaxgen import data, torch_weights
    from jaxgen.data import files
    from jaxgen.layers import init_variables
    from jaxgen.models.completion import RowCompleter
    from jaxgen.runs.layout import Layout
    from tests.support import tiny

    run = work / "run"
    assert wait(fork(partial(tiny_run, run), work / "log")) == 0  # before JAX starts threads
    random_bytes = np.random.default_rng(0).integers(0, 10, 3 * 3073, np.uint8).tobytes()
    idx = {
        "images": bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]) + random_bytes[:60],
        "labels": bytes([0, 0, 8, 1, 0, 0, 0, 9]) + random_bytes[:9],
    }
    readers: list[tuple[Path, Callable[[], object]]] = []
    for what, content in idx.items():
        parse = files.idx_images if what == "images" else files.idx_labels
        for path, written in ((work / what, content), (work / f"{what}.gz", gzip.compress(content))):
            path.write_bytes(written)
            readers.append((path, lambda path=path, parse=parse: parse(files.contents(path), path)))
    cifar = work / "data_batch_1.bin"
    cifar.write_bytes(random_bytes)
    readers.append((cifar, lambda: files.cifar_batch(files.contents(cifar), cifar)))
    rows = np.frombuffer(random_bytes[: 3 * 3072], np.uint8).reshape(3, 3072)
    for protocol in (2, 4):
        batch = work / f"data_batch_{protocol}"
        batch.write_bytes(pickle.dumps({b"labels": [0, 1, 2], b"data": rows}, protocol))
        readers.append((batch, lambda batch=batch: files.cifar_pickle(files.contents(batch), batch)))
    for save in (np.savez, np.savez_compressed):
        path = work / f"{save.__name__}.npz"
        save(path, images=rows.reshape(3, 32, 32, 3), labels=np.arange(3))
        readers.append((path, partial(data.load, f"arrays:{path}")))

    module = RowCompleter("gru", 4, 3)
    variables = init_variables(module, jax.random.key(0))
    tensors = {name: torch.tensor(tensor) for name, tensor in torch_weights.state_dict(module, variables).items()}
    torch_weights.save(module, variables, work / "weights.safetensors")
    torch.save(tensors, work / "weights.pth")
    torch.save(tensors, work / "old.pth", _use_new_zipfile_serialization=False)
    saved = [work / name for name in ("weights.safetensors", "weights.pth", "old.pth")]
    readers += [(path, partial(torch_weights.load, module, path)) for path in saved]
    described = work / "described.safetensors"
    about = {"module": torch_weights.describe(module)}
    described.write_bytes(torch_weights.to_safetensors(torch_weights.flatten(variables), about))
    readers.append((described, partial(torch_weights.load_file, described)))

    def read_config() -> object:
        layout = Layout(run)
        stored = layout.read_config()
        return stored and tiny.Config.read(stored["options"], layout.config)

    return [*readers, (run / "config.json", read_config)]


def changed(content: bytes) -> bytes:
    """Make a few random changes: bits, bytes, integers, truncations, deletions and repetitions."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        # The headers matter most.
        at = random.randrange(min(len(data), random.choice([16, 64, 512, len(data)])))
        kind = random.randrange(6)
        if kind == 0:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B])
        elif kind == 2:
            data[at : at + 4] = random.choice([0, 1, -1, 2**31 - 1, -(2**31), 65536]).to_bytes(4, "big", signed=True)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + random.randrange(1, 64)]
        else:
            data[at:at] = data[at : at + random.randrange(1, 64)]
    return bytes(data)


CHECKS = {"kill": (kill, 1000), "term": (term, 100), "damage": (damage, 10_000), "disk": (disk, 30),
            "repeat": (repeat, 40), "fuzz": (fuzz, 3600)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.split("\n\n")[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(CHECKS)}; default: all")
    parser.add_argument("--times", type=int, help="repetitions, or seconds for fuzz; each check has its own default")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    options = parser.parse_args()
    if unknown := [what for what in options.what if what not in CHECKS]:
        parser.error(f"unknown check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="torture-cache-")
    import_modules()
    failed = False
    for what in options.what or CHECKS:
        check, times = CHECKS[what]
        random.seed(options.seed)
        work = Path(tempfile.mkdtemp(prefix=f"torture-{what}-"))
        start = time.monotonic()
        summary, problems = check(options.times or times, work)
        print(f"{what}: {summary}; {len(problems)} problems, {time.monotonic() - start:.0f} s", flush=True)
        for problem in problems[:20]:
            print(f"  {problem}", flush=True)
        failed |= bool(problems)
        if not problems:
            shutil.rmtree(work)
    return int(failed)


def import_modules() -> None:
    """Import what forked processes need, without starting a backend of JAX."""
    import orbax.checkpoint  # noqa: F401
    from PIL import Image  # noqa: F401

    import jaxgen.runs  # noqa: F401
    from tests import test_runs  # noqa: F401
    from tests.support import tiny  # noqa: F401


if __name__ == "__main__":
    raise SystemExit(main())
