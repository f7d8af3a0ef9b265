"""A run as one zip file: what another machine needs to serve it and to tell its history.

In it are the promoted variant, the gate, the bench, the recipe and the card, and of everything
else only the manifests, whose hashes are the history. Left out are the other variants, the
weights they were made from, and the data set, which may hold what patients wrote. ``export.json``
comes first and names every file with its size and hash; import reads nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from housecall.artifact import MANIFEST, Artifact, hash_file, no_space
from housecall.errors import ArtifactError
from housecall.exports.base import make_folder, promoted_variant, refuse_existing
from housecall.lineage import PROMOTED, RECIPE, chain, served_model

INDEX = "export.json"
_WHOLE = ("gate", "bench")
# What an export for Ollama takes from the merged model.
_SMALL = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
_CARD = ("MODEL_CARD.md", "size-kl.png", "size-kl.svg")
_VERSION = 1
_LARGEST_INDEX = 1 << 20
_BLOCK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an export."""

    path: str
    bytes: int
    sha256: str


def export_zip(run: Path, out: Path) -> None:
    """Write the promoted variant of a run and its history to ``out``.

    Raises ArtifactError when nothing was promoted or something is damaged, and ConfigError when
    ``out`` is there already.
    """
    refuse_existing(out)
    entries = [_entry(run, path) for path in _files(run)]
    index = {"housecall_export": _VERSION, "run": run.resolve().name}
    text = json.dumps({**index, "files": [asdict(e) for e in entries]}, indent=1)
    temporary = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w") as target:
            target.writestr(zipfile.ZipInfo(INDEX), text)
            for entry in entries:
                # Weights do not get smaller by packing; texts do.
                packed = entry.bytes < _BLOCK
                method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                target.write(run / entry.path, entry.path, method)
        temporary.replace(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(out) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _files(run: Path) -> Iterator[Path]:
    """The files of an export, relative to the run."""
    variant = promoted_variant(run)
    yield from (Path(RECIPE), Path(PROMOTED))
    yield from (Path(name) for name in _CARD if (run / name).is_file())
    whole = [variant, *(Artifact.load(run / n) for n in _WHOLE if (run / n / MANIFEST).is_file())]
    for artifact in whole:
        folder = artifact.path.relative_to(run)
        yield folder / MANIFEST
        yield from (folder / entry["path"] for entry in artifact.manifest["files"])
    for entry in chain(variant)[1:]:
        yield Path(entry["path"]) / MANIFEST
    merged = Path("merged")
    yield from (merged / name for name in _SMALL if (run / merged / name).is_file())


def _entry(run: Path, path: Path) -> Entry:
    file = run / path
    return Entry(path.as_posix(), file.stat().st_size, hash_file(file))


def import_zip(file: Path, out: Path | None, runs: Path) -> Path:
    """Unpack an export as ``runs/NAME`` (or ``out``), whole or not at all; returns the run.

    Raises ArtifactError in one line for a file that is no export, is damaged, or tries to write
    elsewhere or more than it says; ConfigError when the run is there already.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file")
    try:
        with zipfile.ZipFile(file) as source:
            name, entries = _index(file, source)
            target = out or runs / name
            refuse_existing(target)
            _check_space(target, entries)
            make_folder(target, lambda folder: _unpack(file, source, entries, folder))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{file}: not a readable zip file ({error})") from error
    return target


def _index(file: Path, source: zipfile.ZipFile) -> tuple[str, list[Entry]]:
    """The name of the run and its files, every one of them checked against the zip's own list."""
    members = source.infolist()
    first = next((m for m in members if m.filename == INDEX), None)
    if first is None or first.file_size > _LARGEST_INDEX:
        raise ArtifactError(f"{file}: no export of Housecall (no {INDEX} in it)")
    try:
        with source.open(first) as stream:
            index = json.loads(stream.read(_LARGEST_INDEX + 1))
        entries = [Entry(e["path"], e["bytes"], e["sha256"]) for e in index["files"]]
        name, version = index["run"], index["housecall_export"]
        if not all(_well_formed(e) for e in entries) or not isinstance(name, str):
            raise ValueError("a wrong entry")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file}: {INDEX} in it is broken ({error})") from error
    if version != _VERSION:
        raise ArtifactError(f"{file}: an export of version {version}: update Housecall to read it")
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"{file}: {name!r} is no name for a run")
    _check_members(file, members, entries)
    return name, entries


def _well_formed(entry: Entry) -> bool:
    return (
        isinstance(entry.path, str)
        and type(entry.bytes) is int
        and entry.bytes >= 0
        and isinstance(entry.sha256, str)
    )


def _check_members(file: Path, members: list[zipfile.ZipInfo], entries: list[Entry]) -> None:
    """Plain files inside the run only, each once, each as large as the index says."""
    sizes = {entry.path: entry.bytes for entry in entries}
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        if not parts or "/".join(parts) != entry.path or not all(map(_PART.fullmatch, parts)):
            raise ArtifactError(f"{file}: {entry.path!r} in it is no path inside a run")
    names = [member.filename for member in members]
    # Two names that differ in case are one file on some systems.
    if len({name.lower() for name in names}) < len(names) or len(sizes) < len(entries):
        raise ArtifactError(f"{file}: names a file twice")
    if set(names) != {INDEX, *sizes}:
        odd = sorted(set(names) ^ {INDEX, *sizes})[0]
        raise ArtifactError(f"{file}: {odd!r} is in the zip or in its {INDEX}, but not in both")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or kind not in (0, stat.S_IFREG):
            raise ArtifactError(f"{file}: {member.filename!r} in it is not a plain file")
        if member.file_size != sizes.get(member.filename, member.file_size):
            raise ArtifactError(
                f"{file}: {member.filename!r} would be {member.file_size} bytes, and "
                f"{sizes[member.filename]} are announced"
            )


def _check_space(target: Path, entries: list[Entry]) -> None:
    there = next(folder for folder in target.absolute().parents if folder.exists())
    if sum(entry.bytes for entry in entries) > shutil.disk_usage(there).free:
        raise no_space(target)


def _unpack(file: Path, source: zipfile.ZipFile, entries: list[Entry], folder: Path) -> None:
    for entry in entries:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        found, size = hashlib.sha256(), 0
        with source.open(entry.path) as packed, target.open("xb") as plain:
            while block := packed.read(_BLOCK):
                size += len(block)
                if size > entry.bytes:  # whatever its header says
                    raise ArtifactError(f"{file}: {entry.path!r} is larger than announced")
                found.update(block)
                plain.write(block)
        if (size, found.hexdigest()) != (entry.bytes, entry.sha256):
            raise ArtifactError(
                f"{file}: {entry.path!r} in it is damaged (expected sha256 {entry.sha256}, "
                f"found {found.hexdigest()}): copy the file again"
            )
    served_model(str(folder))  # the history and the gate's verdict hold together
