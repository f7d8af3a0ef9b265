"""What all ways out of a run share."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from housecall.artifact import Artifact, no_space
from housecall.errors import ArtifactError, ConfigError
from housecall.lineage import served_model


def promoted_variant(run: Path) -> Artifact:
    """The variant that passed the gate, its bytes verified. Raises what ``served_model`` raises."""
    return Artifact.read(served_model(str(run)).path.parent)


def make_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """A folder that is there whole or not at all. Raises ConfigError when something is there."""
    refuse_existing(out)
    temporary = out.with_name(f".{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        temporary.rename(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(out) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(out: Path) -> None:
    """Nothing is overwritten."""
    if out.exists():
        raise ConfigError(f"{out}: is there already: choose another place with --out, or remove it")


def copy_verified(artifact: Artifact, name: str, target: Path) -> None:
    """A copy of one file of an artifact, whose bytes were verified before.

    A copy, not a hard link: what is exported may be edited without changing the run.
    """
    source = artifact.path / artifact.file(name)["path"]
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise ArtifactError(
            f"{source}: missing: this run was exported without it; export from the original run"
        ) from None
