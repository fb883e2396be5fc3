"""The user's own pictures: a folder in the layout of PyTorch's ImageFolder, or a flat one. It is never changed.

`PATH/train/CLASS/…` and `PATH/test/CLASS/…` are two splits, under any of the usual names. Classes are numbered in
alphabetical order. A folder without splits is divided by a fraction of its files.
"""

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jaxgen.data import cache, splits
from jaxgen.data.decode import open_picture, suffixes
from jaxgen.data.images import Images, Target, check_memory, fit
from jaxgen.data.report import Report, listed, summary
from jaxgen.errors import InputError

# What file servers and operating systems leave in folders; in lower case. Names that start with a dot are ignored too.
_IGNORED_FOLDERS = frozenset(
    {"@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information"}
    | {"__macosx", "__pycache__", "lost+found", "recycler"}
)
_IGNORED_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})

_UNLABELED = ""  # stands for the folder itself where its pictures are not in sub-folders

Example = tuple[str, int]  # a picture file and its label; a million paths take less memory as text


class _Scan(NamedTuple):
    """The content of a folder.

    Attributes:
        by_class: picture files by sub-folder. A sub-folder without pictures has an empty list.
        left_out: the number of other files, by the ending of their names.
    """

    by_class: dict[str, list[str]]
    left_out: Counter[str]


class _Split(NamedTuple):
    """The files of one split.

    Attributes:
        examples: the picture files and their labels.
        classes: names of the classes of all splits.
        held_out: the number of files in the other split, if this one is for training.
        left_out: the number of files that are not pictures, by the ending of their names.
        unused: sub-folders, and images beside them, that are no part of either split.
    """

    examples: list[Example]
    classes: tuple[str, ...]
    held_out: int
    left_out: Counter[str]
    unused: tuple[str, ...] = ()


def read(
    path: str,
    split: str,
    target: Target,
    *,
    division: splits.Division,
    skip_bad: bool,
    report: Report,
    on_disk: bool | None = None,
) -> Images:
    """The images of one split. They are cached until a file or an option changes."""
    name = f"folder:{path}"
    root = cache.expand_user(path, name)
    _check_is_folder(root, name)
    files = _find_split(root, split, division)
    title = cache.fingerprint(root.resolve(), split, target, skip_bad, division)
    below = len(os.path.join(root, ""))
    states = ((file[below:], label, _state(file)) for file, label in files.examples)
    origin = cache.fingerprint(files.classes, each=states)
    make = partial(_decode, name, files, target, skip_bad, report)
    prepared = cache.cached(f"folder-{title[:32]}", origin, make, on_disk=on_disk)
    line = summary(name, split, prepared.images, target, prepared.distorted, files.held_out)
    if files.unused:
        line += f"; not used: {listed(files.unused)}"
    if files.left_out:
        line += f"; left out, as Pillow does not read them: {_kinds(files.left_out)}"
    if files.left_out or prepared.skipped:
        report.warn(line)
    else:
        report.inform(line)
    for reason in prepared.skipped:
        report.warn(f"skipped: {reason}")
    return prepared.images


def _check_is_folder(root: Path, name: str) -> None:
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such folder; if it was moved, name its new place (--data)") from None
    except NotADirectoryError:
        raise InputError(f"{name} is not a folder") from None
    except (OSError, ValueError) as error:  # not permitted, too long a name, a zero byte in it
        raise InputError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _kinds(left_out: Counter[str]) -> str:
    return listed([f"{count:,} {suffix or 'without an ending'}" for suffix, count in left_out.most_common()], most=6)


def _find_split(root: Path, split: str, division: splits.Division) -> _Split:
    below = [name for name in _entries(root) if not _is_ignored(name)]
    folders: dict[str, list[str]] = {}
    for name in below:
        if kind := splits.kind_of_split(name):
            folders.setdefault(kind, []).append(name)
    if not folders:
        _refuse_hidden_splits(root, below)
        return _divide(root, split, division)
    test_kind = "test" if "test" in folders else "val"
    for kind in ("train", test_kind):
        if len(folders.get(kind, ())) > 1:
            raise InputError(f"folder:{root} has {'/ and '.join(folders[kind])}/, of which one must go")
    if len(folders) == 1:
        [names] = folders.values()
        raise InputError(
            f"folder:{root} has {names[0]}/ only: it needs train/ and test/ (or val/); "
            "if that is a class, rename it, since this is the name of a split"
        )
    if "train" not in folders:
        raise InputError(
            f"folder:{root} has {'/ and '.join(name for names in folders.values() for name in names)}/ but no train/"
        )
    [train], [test] = folders["train"], folders[test_kind]
    unused = [f"{name}/" for name in below if name not in (train, test)]
    if beside := sum(Path(name).suffix.lower() in suffixes() for name in _entries(root, folders=False)):
        unused.append(f"{beside:,} image{'s' * (beside > 1)} beside the splits")
    return _pair(root / train, root / test, split)._replace(unused=tuple(unused))


def _refuse_hidden_splits(root: Path, below: list[str]) -> None:
    """Refuse a folder in which sub-folders that look like splits would be taken for classes, or parts of them."""
    if similar := splits.look_like_splits(below):
        raise InputError(
            f"folder:{root} has sub-folders that look like splits, {listed(similar)}: name them train/ and test/, "
            "with a sub-folder for each class in both"
        )
    for name in below:
        deeper = _entries(root / name)
        if {splits.kind_of_split(inner) for inner in deeper} - {None} > {"train"} or splits.look_like_splits(deeper):
            raise InputError(
                f"folder:{root} has splits one level down, in {name}/: name that folder, folder:{root / name}, "
                "or put train/ and test/ above the classes"
            )


def _pair(train: Path, test: Path, split: str) -> _Split:
    scans = {"train": _scan(train), "test": _scan(test)}
    flat = [_UNLABELED in scan.by_class for scan in scans.values()]
    if flat[0] != flat[1]:
        sorted_one, flat_one = (test, train) if flat[0] else (train, test)
        raise InputError(f"{sorted_one} has a sub-folder for each class and {flat_one} has none: sort both, or neither")
    classes = sorted(set().union(*(scan.by_class for scan in scans.values())))
    examples = {name: _labeled(scan, classes) for name, scan in scans.items()}
    held_out = len(examples["test"]) if split == "train" else 0
    return _Split(examples[split], _names(classes), held_out, scans[split].left_out)


def _divide(root: Path, split: str, division: splits.Division) -> _Split:
    """Hold out a fraction of the files. The names of the files decide which."""
    scan = _scan(root)
    classes = sorted(scan.by_class)
    examples = _labeled(scan, classes)
    if len(examples) < 2:
        raise InputError(f"folder:{root} holds a single image: to train and to test takes two")
    below = len(os.path.join(root, ""))
    names = [os.fsencode(file[below:].replace(os.sep, "/")) for file, _ in examples]
    held_out = splits.held_out(names, division)
    chosen = [example for index, example in enumerate(examples) if (index in held_out) == (split == "test")]
    return _Split(chosen, _names(classes), len(held_out) if split == "train" else 0, scan.left_out)


def _labeled(scan: _Scan, classes: list[str]) -> list[Example]:
    return [(file, label) for label, name in enumerate(classes) for file in scan.by_class.get(name, ())]


def _names(classes: list[str]) -> tuple[str, ...]:
    return () if classes == [_UNLABELED] else tuple(classes)


def _scan(folder: Path) -> _Scan:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}")

    readable = suffixes()
    by_class: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()
    for place, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place)
        below[:] = sorted(name for name in below if not _is_ignored(name) and not _is_loop(here, name))
        if here == folder:
            by_class.update((name, []) for name in below)
        prefix = os.path.join(place, "")
        class_name = next(iter(here.relative_to(folder).parts), _UNLABELED)
        for name in sorted(names):
            if name.startswith(".") or name.lower() in _IGNORED_FILES:
                continue
            _, dot, ending = name.rpartition(".")
            suffix = f"{dot}{ending}".lower() if dot and ending else ""
            if suffix in readable:
                by_class.setdefault(class_name, []).append(prefix + name)
            else:
                left_out[suffix] += 1
    _check_scan(folder, by_class, left_out)
    if _UNLABELED in by_class:
        by_class = {_UNLABELED: by_class[_UNLABELED]}
    return _Scan(by_class, left_out)


def _check_scan(folder: Path, by_class: dict[str, list[str]], left_out: Counter[str]) -> None:
    with_images = [name for name, files in by_class.items() if files]
    if not with_images:
        instead = f", only {_kinds(left_out)}" if left_out else ""
        raise InputError(f"{folder} holds no images in a format that Pillow reads{instead}")
    if _UNLABELED in with_images and len(with_images) > 1:
        raise InputError(f"{folder} holds images and also sub-folders of images: sort all into sub-folders, or none")


def _entries(folder: Path, folders: bool = True) -> list[str]:
    """Names of the sub-folders, or of everything else, in a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() == folders)
    except OSError:  # reported where the folder is scanned
        return []


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED_FOLDERS


def _is_loop(here: Path, name: str) -> bool:
    """Whether a sub-folder is a link to a folder that contains it."""
    return here.resolve().is_relative_to((here / name).resolve())


def _decode(
    name: str, files: _Split, target: Target, skip_bad: bool, report: Report, collector: cache.Collector
) -> cache.About:
    if target.size is not None:
        check_memory(1, *target.size, target.channels or 1)
    skipped, distorted, decoded = [], 0, 0
    collector.count = len(files.examples)
    for file, label in report.progress(files.examples, f"{name}: decoding"):
        try:
            picture = open_picture(Path(file))
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}; repair or remove it, or leave out such files (--skip-bad)") from error
            skipped.append(str(error))
            continue
        distorted += target.distorts(picture.height, picture.width)
        collector.add(fit(picture, target), label)
        decoded += 1
    if not decoded:
        raise InputError(f"none of the {len(files.examples)} images can be read: {skipped[0]}")
    return cache.About(classes=files.classes, skipped=tuple(skipped), distorted=distorted)
