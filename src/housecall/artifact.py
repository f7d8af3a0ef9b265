"""An artifact: a folder with a manifest that says what it is, what made it and from what.

The manifest is the last thing written into a temporary folder that is then renamed: no manifest,
no artifact. Parents are named by relative path and by the hash of their manifest, so a run can be
moved and still proves its own history.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import housecall
from housecall.errors import ArtifactError
from housecall.machine import describe_machine, git_commit, package_versions

MANIFEST = "manifest.json"
_NO_SPACE = os.strerror(errno.ENOSPC)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished artifact. ``sha256`` is that of its manifest, which holds those of its files."""

    path: Path
    manifest: Mapping[str, Any]
    sha256: str

    @classmethod
    def load(cls, path: Path, *, verify: bool = True) -> Artifact:
        """Read an artifact; with ``verify`` every file's hash is computed, else only its size.

        Raises ArtifactError naming the file, and the expected and found hash.
        """
        artifact = cls.read(path)
        for entry in artifact.manifest["files"]:
            _check_file(path, entry, verify)
        return artifact

    @classmethod
    def read(cls, path: Path) -> Artifact:
        """Read the manifest alone: its files need not be there (an exported run lacks some).

        Raises ArtifactError when there is no manifest, or it is broken.
        """
        _recover(path)
        file = path / MANIFEST
        try:
            raw = file.read_bytes()
            manifest = json.loads(raw)
            for entry in manifest["files"]:
                _ = str(entry["path"]), int(entry["bytes"]), str(entry["sha256"])
        except FileNotFoundError:
            raise ArtifactError(f"{path}: not an artifact (no {MANIFEST}): run its step") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{file}: broken manifest ({error}): {_mend(path)}") from error
        return cls(path, manifest, hashlib.sha256(raw).hexdigest())

    @property
    def kind(self) -> str:
        """``base``, ``dataset``, ``adapter``, ``merged``, ``variant``, ``gate`` or ``bench``."""
        return str(self.manifest["kind"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the step measured."""
        metrics: Mapping[str, Any] = self.manifest["metrics"]
        return metrics

    def parents(self) -> list[Artifact]:
        """The artifacts this one was made from, their manifests checked against the hashes here.

        Raises ArtifactError when a parent is missing or is not the one this was made from.
        """
        return [self._parent(entry) for entry in self.manifest["parents"]]

    def _parent(self, entry: Mapping[str, str]) -> Artifact:
        parent = Artifact.read(Path(os.path.normpath(self.path / entry["path"])))
        if parent.sha256 != entry["sha256"]:
            raise ArtifactError(
                f"{parent.path / MANIFEST}: {self.path} was made from another one "
                f"(expected sha256 {entry['sha256']}, found {parent.sha256}): run it again"
            )
        return parent

    def file(self, name: str) -> Mapping[str, Any]:
        """The manifest's entry (path, bytes, sha256) of one file."""
        for entry in self.manifest["files"]:
            if entry["path"] == name:
                found: Mapping[str, Any] = entry
                return found
        raise ArtifactError(f"{self.path}: its manifest names no file {name}")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(int(entry["bytes"]) for entry in self.manifest["files"])


@dataclass(slots=True)
class Draft:
    """An artifact in the making: write files into ``path``, facts into ``metrics``."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    licences: dict[str, Any] = field(default_factory=dict)


@contextmanager
def create(
    out: Path,
    kind: str,
    *,
    config: Mapping[str, Any],
    parents: Sequence[Artifact] = (),
    seed: int | None = None,
) -> Iterator[Draft]:
    """Make an artifact at ``out``; on any error or interrupt what was there before stays.

    Licences are inherited from the parents. Raises ArtifactError when the disk is full.
    """
    started = time.monotonic()
    temporary = out.parent / f".{out.name}.partial"
    _remove(temporary)
    try:
        temporary.mkdir(parents=True)
        draft = Draft(temporary, licences=_inherited(parents))
        yield draft
        manifest = {
            "kind": kind,
            "housecall": {"version": housecall.__version__, "commit": git_commit()},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parents": [
                {"path": os.path.relpath(p.path, out), "sha256": p.sha256} for p in parents
            ],
            "config": dict(config),
            "seed": seed,
            "versions": package_versions(),
            "licences": draft.licences,
            "files": [_describe(file, temporary) for file in _files(temporary)],
            "metrics": draft.metrics,
            "seconds": round(time.monotonic() - started, 3),
            "machine": describe_machine(),
        }
        write_json(temporary / MANIFEST, manifest)
        _replace(temporary, out)
    except Exception as error:
        if is_no_space(error):
            raise no_space(out) from error
        raise
    finally:
        _remove(temporary)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text so that the file is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_no_space(error: Exception) -> bool:
    """Whether a full disk is behind it; safetensors and torch wrap the error in their own."""
    return _NO_SPACE in str(error)


def no_space(path: Path) -> ArtifactError:
    """The error for a full disk."""
    return ArtifactError(
        f"{path}: no space left on the disk; nothing made before is lost: "
        "free some space and give the same command again"
    )


def _mend(folder: Path) -> str:
    """What to do about an artifact that is broken: a step that looks done is not run again."""
    return f"copy it again, or remove {folder} and run its step again"


def _check_file(folder: Path, entry: Mapping[str, Any], verify: bool) -> None:
    path, size, sha256 = folder / entry["path"], int(entry["bytes"]), entry["sha256"]
    try:
        state = path.stat()
        found_size = state.st_size
        if found_size == size and not verify:
            return
        found = _hash_once(path, state.st_ino, found_size, state.st_mtime_ns)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing: {_mend(folder)}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    if (found_size, found) != (size, sha256):
        raise ArtifactError(
            f"{path}: damaged or changed (expected sha256 {sha256} of {size} bytes, "
            f"found {found} of {found_size} bytes): {_mend(folder)}"
        )


@lru_cache(maxsize=1024)
def _hash_once(path: Path, *_state: int) -> str:
    """The hash of a file; steps of one command ask for it again of a file that did not change."""
    return hash_file(path)


def _inherited(parents: Sequence[Artifact]) -> dict[str, Any]:
    licences: dict[str, Any] = {}
    for parent in parents:
        licences.update(parent.manifest["licences"])
    return licences


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _describe(file: Path, folder: Path) -> dict[str, Any]:
    return {
        "path": file.relative_to(folder).as_posix(),
        "bytes": file.stat().st_size,
        "sha256": hash_file(file),
    }


def _replace(new: Path, out: Path) -> None:
    """Put the folder ``new`` in the place of ``out``; the old one goes only after the new is in."""
    old = out.parent / f".{out.name}.old"
    _recover(out)  # else the old one would be removed before the new one is in
    _remove(old)
    if out.exists():
        out.rename(old)
    new.rename(out)
    _remove(old)


def _recover(out: Path) -> None:
    """Put the old folder back if ``_replace`` was killed between its two renames."""
    old = out.parent / f".{out.name}.old"
    if old.exists() and not out.exists():
        old.rename(out)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
