"""An artifact is whole and proves its history, whatever happens while it is made or moved."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from housecall import artifact
from housecall.artifact import Artifact, create, write_json
from housecall.errors import ArtifactError
from housecall.journal import Journal


def make(out: Path, text: str = "first", parents: list[Artifact] | None = None) -> Artifact:
    with create(out, "dataset", config={"a": 1}, parents=parents or [], seed=3) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "data.txt").write_text(text)
        (draft.path / "sub" / "manifest.json").write_text("{}")
        draft.metrics["rows"] = 2
        draft.licences.setdefault("data", "CC0")
    return Artifact.load(out)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_manifest(tmp_path: Path) -> None:
    made = make(tmp_path / "dataset")
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest == made.manifest
    assert list(manifest) == [
        "kind",
        "housecall",
        "created",
        "parents",
        "config",
        "seed",
        "versions",
        "licences",
        "files",
        "metrics",
        "seconds",
        "machine",
    ]
    assert (made.kind, made.metrics, manifest["seed"]) == ("dataset", {"rows": 2}, 3)
    assert [entry["path"] for entry in manifest["files"]] == ["data.txt", "sub/manifest.json"]
    assert made.size == len("first") + len("{}")
    assert made.file("data.txt")["bytes"] == 5
    assert manifest["versions"]["python"].count(".") == 2
    with pytest.raises(ArtifactError, match="names no file other"):
        made.file("other")
    assert names(tmp_path) == ["dataset"]


def test_the_manifest_does_not_name_the_machine_or_its_user(tmp_path: Path) -> None:
    import getpass
    import platform

    text = (make(tmp_path / "a").path / "manifest.json").read_text()
    assert platform.node() not in text
    assert str(tmp_path) not in text
    assert f"/{getpass.getuser()}/" not in text


# While it is made


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    old = make(tmp_path / "a")

    def fail() -> None:
        with create(tmp_path / "a", "dataset", config={}) as draft:
            (draft.path / "data.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert Artifact.load(tmp_path / "a") == old
    assert names(tmp_path) == ["a"]


def test_an_error_before_the_first_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), create(tmp_path / "a", "dataset", config={}):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    make(tmp_path / "a")
    assert (make(tmp_path / "a", "second").path / "data.txt").read_text() == "second"
    assert names(tmp_path) == ["a"]


KILLED = """
import os, pathlib, shutil, signal, sys
from pathlib import Path
from housecall import artifact

out, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
rename, remove = pathlib.Path.rename, shutil.rmtree

def killing_rename(self, target):
    step = "old goes" if self == out else "new comes"
    if moment == f"before the {step}":
        die()
    rename(self, target)
    if moment == f"after the {step}":
        die()

def killing_remove(folder, **options):
    if moment == "old half removed" and Path(folder).name.endswith(".old"):
        next(Path(folder).glob("data.txt")).unlink()
        die()
    remove(folder, **options)

pathlib.Path.rename, shutil.rmtree = killing_rename, killing_remove
with artifact.create(out, "dataset", config={}) as draft:
    (draft.path / "data.txt").write_text("second")
    if moment == "files written":
        die()
    if moment == "manifest written":
        artifact._replace = lambda *_: die()
raise SystemExit("was not killed")
"""
MOMENTS = {
    "files written": "first",
    "manifest written": "first",
    "before the old goes": "first",
    "after the old goes": "first",
    "before the new comes": "first",
    "after the new comes": "second",
    "old half removed": "second",
}


def killed(out: Path, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(out), moment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="uses SIGKILL")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment(tmp_path: Path, moment: str) -> None:
    """The old one or the new one is there, and the next one takes its place."""
    out = tmp_path / "a"
    make(out)
    killed(out, moment)
    found = Artifact.load(out)
    assert (found.path / "data.txt").read_text() == MOMENTS[moment]
    assert make(out, "third").file("data.txt")["bytes"] == 5
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="uses SIGKILL")
def test_killed_twice_between_the_renames(tmp_path: Path) -> None:
    """The one copy that is left is never removed to make room for itself."""
    out = tmp_path / "a"
    make(out)
    for moment in ("after the old goes", "before the new comes"):
        killed(out, moment)
    assert (Artifact.load(out).path / "data.txt").read_text() == "first"


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    old = make(tmp_path / "a")

    def fill() -> None:
        with create(tmp_path / "a", "dataset", config={}):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ArtifactError, match="no space left on the disk") as error:
        fill()
    assert "\n" not in str(error.value)
    assert str(tmp_path / "a") in str(error.value)
    assert Artifact.load(tmp_path / "a") == old


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk: Linux, as root"
)
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        old = make(disk / "a")
        for fill in (fill_with_bytes, fill_with_tensors, fill_with_gguf):
            with pytest.raises(ArtifactError, match="no space left on the disk"):
                fill(disk / "a")
            assert Artifact.load(disk / "a") == old
            assert names(disk) == ["a"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_with_bytes(out: Path) -> None:
    with create(out, "dataset", config={}) as draft:
        (draft.path / "data.bin").write_bytes(bytes(1_000_000))


def fill_with_tensors(out: Path) -> None:
    """The library wraps the system's error in its own."""
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    with create(out, "dataset", config={}) as draft:
        safetensors.save_file({"x": numpy.ones(250_000)}, draft.path / "x.safetensors")


def fill_with_gguf(out: Path) -> None:
    """The disk is full in the middle of a tensor."""
    numpy = pytest.importorskip("numpy")
    gguf = pytest.importorskip("gguf")
    files = pytest.importorskip("housecall.gguf.files")
    info = files.TensorInfo("x", (250_000,), gguf.GGMLQuantizationType.F32)
    with create(out, "variant", config={}) as draft:
        packed = [numpy.ones(250_000, dtype=numpy.float32)]
        files.write_gguf(draft.path / "x.gguf", {"general.architecture": "llama"}, [info], packed)


# When it is read


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    flip(tmp_path / "a" / "data.txt")
    with pytest.raises(ArtifactError) as error:
        Artifact.load(tmp_path / "a")
    message = str(error.value)
    assert str(tmp_path / "a" / "data.txt") in message
    assert f"expected sha256 {made.file('data.txt')['sha256']}" in message
    assert f"found {artifact.hash_file(tmp_path / 'a' / 'data.txt')}" in message
    assert "\n" not in message
    assert Artifact.load(tmp_path / "a", verify=False) == made


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_or_missing_file_is_found_without_hashing(tmp_path: Path, verify: bool) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "data.txt").write_text("fi")
    with pytest.raises(ArtifactError, match=r"data\.txt: damaged .* of 5 bytes, .* of 2 bytes"):
        Artifact.load(tmp_path / "a", verify=verify)
    (tmp_path / "a" / "data.txt").unlink()
    with pytest.raises(ArtifactError, match=r"data\.txt: missing"):
        Artifact.load(tmp_path / "a", verify=verify)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "data.txt").unlink()
    (tmp_path / "a" / "data.txt").mkdir()
    with pytest.raises(ArtifactError, match=r"data\.txt: can't be read"):
        Artifact.load(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"files": null}', b'{"files": [{"path": "x"}]}'],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: broken manifest") as error:
        Artifact.load(tmp_path / "a")
    assert "\n" not in str(error.value)


def test_without_a_manifest_it_is_not_an_artifact(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match="not an artifact"):
            Artifact.load(path)


# Its parents


def family(run: Path) -> Artifact:
    """adapter <- dataset, base; variants/x <- adapter."""
    with create(run / "base", "base", config={}) as draft:
        draft.licences["base"] = "Apache-2.0"
    parents = [Artifact.load(run / "base"), make(run / "dataset")]
    adapter = make(run / "adapter", "adapter", parents)
    return make(run / "variants" / "x", "x", [adapter])


def test_a_moved_run_proves_its_history(tmp_path: Path) -> None:
    family(tmp_path / "here")
    (tmp_path / "there").mkdir()
    (tmp_path / "here").rename(tmp_path / "there" / "run")
    (adapter,) = Artifact.load(tmp_path / "there" / "run" / "variants" / "x").parents()
    assert adapter.path == tmp_path / "there" / "run" / "adapter"
    assert [parent.kind for parent in adapter.parents()] == ["base", "dataset"]


def test_licences_are_inherited(tmp_path: Path) -> None:
    assert family(tmp_path).manifest["licences"] == {"base": "Apache-2.0", "data": "CC0"}


def test_another_parent_is_found(tmp_path: Path) -> None:
    child = family(tmp_path)
    old = child.manifest["parents"][0]["sha256"]
    new = make(tmp_path / "adapter", "made again").sha256
    with pytest.raises(ArtifactError, match="was made from another one") as error:
        child.parents()
    assert f"expected sha256 {old}, found {new}" in str(error.value)


def test_a_missing_parent_is_found(tmp_path: Path) -> None:
    child = family(tmp_path)
    (tmp_path / "adapter").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="adapter: not an artifact"):
        child.parents()


# Pieces of a step


def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Journal(tmp_path / "gate", {"seed": 1})
    assert first.get("a") is None
    first.put("a", [1, 2])
    assert Journal(tmp_path / "gate", {"seed": 1}).get("a") == [1, 2]
    assert Journal(tmp_path / "gate", {"seed": 2}).get("a") is None
    first.forget()
    assert names(tmp_path) == []


def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "x.json", {"a": 1})

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken disk"):
        write_json(tmp_path / "x.json", {"a": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["x.json"]
