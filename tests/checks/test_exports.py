"""A run out (zip, Ollama, Hugging Face), in, and away; and zip files that mean harm."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from housecall.chat_template import ChatTemplate
from housecall.errors import ArtifactError, ConfigError
from housecall.exports import zips
from housecall.exports.huggingface import export_huggingface
from housecall.exports.ollama import export_ollama, go_template
from housecall.exports.zips import INDEX, export_zip, import_zip
from housecall.lineage import chain, served_model
from housecall.locks import serving, working
from housecall.pipeline import Run
from housecall.removal import remove_run
from housecall.types import Message
from tiny_models import CHATML, TINYLLAMA


@pytest.fixture
def exported(whole_run: Run, tmp_path: Path) -> Path:
    export_zip(whole_run.path, tmp_path / "run.zip")
    return tmp_path / "run.zip"


def test_a_full_disk_is_said_of_the_zip_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: run")
    monkeypatch.setattr(zips, "_files", lambda _: [Path("recipe.yaml")])
    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(ArtifactError, match=r"out/run\.zip: no space left on the disk; nothing"):
        export_zip(tmp_path / "run", tmp_path / "out" / "run.zip")
    assert not list((tmp_path / "out").iterdir())


def test_a_zip_is_served_elsewhere_with_its_whole_history(
    whole_run: Run, exported: Path, tmp_path: Path
) -> None:
    there = import_zip(exported, None, tmp_path / "runs")
    assert there == tmp_path / "runs" / "run"
    model, original = served_model(str(there)), served_model(str(whole_run.path))
    assert model.gated
    assert model.sha256 == original.sha256
    assert model.lineage == original.lineage
    assert model.system_prompt == original.system_prompt
    kinds = [entry["kind"] for entry in model.lineage]
    assert [k for k in kinds if k != "imatrix"] == [
        *("variant", "gate", "merged", "adapter", "dataset", "base"),
    ]


def test_a_zip_holds_no_dialogue_and_no_weights_but_the_promoted(
    whole_run: Run, exported: Path
) -> None:
    promoted = served_model(str(whole_run.path)).format
    with zipfile.ZipFile(exported) as source:
        names = source.namelist()
    assert not [n for n in names if n.endswith(".jsonl")]
    weights = [n for n in names if n.endswith((".safetensors", ".gguf"))]
    assert weights == [f"variants/{promoted}/model.gguf"]


def test_an_import_overwrites_nothing(exported: Path, tmp_path: Path) -> None:
    import_zip(exported, None, tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"runs/run: is there already: .*--out"):
        import_zip(exported, None, tmp_path / "runs")
    assert import_zip(exported, tmp_path / "other", tmp_path / "runs") == tmp_path / "other"


def test_an_imported_run_goes_on_to_ollama(exported: Path, whole_run: Run, tmp_path: Path) -> None:
    there = import_zip(exported, None, tmp_path / "runs")
    export_ollama(there, tmp_path / "one")
    export_ollama(whole_run.path, tmp_path / "two")
    assert (tmp_path / "one" / "Modelfile").read_text() == (
        tmp_path / "two" / "Modelfile"
    ).read_text()
    with pytest.raises(ArtifactError, match=r"merged.*: missing"):
        export_huggingface(there, tmp_path / "three")
    assert not (tmp_path / "three").exists()


Harm = Callable[[zipfile.ZipFile, dict[str, Any]], None]


def rewrite(source: Path, target: Path, harm: Harm) -> Path:
    """A copy of an export, whose index and last members ``harm`` may write."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        index = json.loads(old.read(INDEX))
        for name in old.namelist():
            if name != INDEX:
                new.writestr(name, old.read(name))
        harm(new, index)
        new.writestr(INDEX, json.dumps(index))
    return target


def _add(name: str, link: bool = False, size: int | None = None) -> Harm:
    def harm(target: zipfile.ZipFile, index: dict[str, Any]) -> None:
        info = zipfile.ZipInfo(name)
        if link:
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(info, "/etc/passwd")
        entry = {"path": name, "bytes": 11 if size is None else size, "sha256": "0" * 64}
        index["files"].append(entry)

    return harm


def _stowaway(target: zipfile.ZipFile, _: dict[str, Any]) -> None:
    target.writestr("gate/extra.py", "x")


def _missing(_: zipfile.ZipFile, index: dict[str, Any]) -> None:
    index["files"].append({"path": "gate/gone", "bytes": 1, "sha256": "0" * 64})


def _bomb(target: zipfile.ZipFile, index: dict[str, Any]) -> None:
    info = zipfile.ZipInfo("gate/zeros")
    target.writestr(info, bytes(10_000_000), zipfile.ZIP_DEFLATED)
    index["files"].append({"path": "gate/zeros", "bytes": 10, "sha256": "0" * 64})


def _huge(target: zipfile.ZipFile, index: dict[str, Any]) -> None:
    target.writestr("gate/huge", "")
    target.filelist[-1].file_size = 2**60
    index["files"].append({"path": "gate/huge", "bytes": 2**60, "sha256": "0" * 64})


def _other_name(_: zipfile.ZipFile, index: dict[str, Any]) -> None:
    index["run"] = "../run"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_add("../outside"), r"'\.\./outside' in it is no path inside a run"),
        (_add("/etc/outside"), "no path inside a run"),
        (_add("gate/../../x"), "no path inside a run"),
        (_add("gate\\x"), "no path inside a run"),
        (_add("C:x"), "no path inside a run"),
        (_add(".hidden/x"), "no path inside a run"),
        (_add("gate/link", link=True), "'gate/link' in it is not a plain file"),
        (_add("RECIPE.yaml"), "names a file twice"),
        (_add("gate/wrong"), r"'gate/wrong' in it is damaged \(expected sha256 0000"),
        (_add("gate/longer", size=5), "would be 11 bytes, and 5 are announced"),
        (_stowaway, "'gate/extra.py' is in the zip or in its export.json, but not in both"),
        (_missing, "'gate/gone' is in the zip or in its export.json, but not in both"),
        (_bomb, "would be 10000000 bytes, and 10 are announced"),
        (_huge, "no space left on the disk"),
        (_other_name, "'../run' is no name for a run"),
    ],
)
def test_a_harmful_zip_writes_nothing(
    exported: Path, tmp_path: Path, harm: Harm, says: str
) -> None:
    wrong = rewrite(exported, tmp_path / "wrong.zip", harm)
    with pytest.raises(ArtifactError, match=says):
        import_zip(wrong, None, tmp_path / "runs")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".zip"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", None], ids=["empty", "junk", "cut"])
def test_a_broken_file_is_one_line(exported: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.zip"
    file.write_bytes(exported.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ArtifactError, match=r"broken\.zip: not a readable zip file"):
        import_zip(file, None, tmp_path / "runs")


def test_any_other_zip_is_no_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as target:
        target.writestr("hello.txt", "hello")
    with pytest.raises(ArtifactError, match="no export of Housecall"):
        import_zip(tmp_path / "other.zip", None, tmp_path / "runs")


def test_nothing_is_exported_that_was_not_promoted(whole_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole_run.path, copy)
    (copy / "promoted.json").unlink()
    with pytest.raises(ArtifactError, match="nothing has passed the gate"):
        export_zip(copy, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_folder_for_hugging_face_loads_and_has_its_card(whole_run: Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_huggingface(whole_run.path, tmp_path / "hf")
    AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True)
    AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    _, matter, body = (tmp_path / "hf" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(matter)["license"] == "other"
    assert "the licence of the base model" in body  # the test's recipe states none
    assert "| `gguf-q8_0` |" in body.replace("**", "")
    assert "size-kl.png" in body
    assert (tmp_path / "hf" / "size-kl.png").stat().st_size > 1000


CONVERSATIONS = [
    [Message("user", "a {{ x }} b")],
    [Message("system", "s"), Message("user", "u")],
    [Message("user", "1"), Message("assistant", "2"), Message("user", '3 "')],
]
GO = """package main
import ("encoding/json"; "os"; "text/template")
type message struct { Role, Content string }
func main() {
	var in struct { T string; M []message }
	json.NewDecoder(os.Stdin).Decode(&in)
	data := map[string]any{"Messages": in.M}
	template.Must(template.New("t").Parse(in.T)).Execute(os.Stdout, data)
}
"""


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
@pytest.mark.parametrize("source", [CHATML, TINYLLAMA], ids=["chatml", "tinyllama"])
def test_go_renders_the_template_as_jinja_does(source: str, tmp_path: Path) -> None:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    (tmp_path / "main.go").write_text(GO)
    for messages in CONVERSATIONS:
        turns = [{"Role": m.role, "Content": m.content} for m in messages]
        done = subprocess.run(
            ["go", "run", "main.go"],
            input=json.dumps({"T": go_template(template), "M": turns}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        segments = template.segments(messages, add_generation_prompt=True)
        assert done.stdout == "".join(segment.text for segment in segments)


def test_the_template_for_ollama() -> None:
    """Seen to render as Jinja does with Go 1.27 (the test above, where Go is installed)."""
    text = go_template(ChatTemplate(TINYLLAMA, eos_token="</s>"))
    assert text == (
        '{{ $before := "" }}{{ range .Messages }}'
        '{{ if and (eq $before "") (eq .Role "system") }}<|system|>\n'
        '{{ else if and (eq $before "system") (eq .Role "user") }}</s>\n<|user|>\n'
        '{{ else if and (eq $before "user") (eq .Role "assistant") }}</s>\n<|assistant|>\n'
        '{{ else if and (eq $before "assistant") (eq .Role "user") }}</s>\n<|user|>\n'
        '{{ else if and (eq $before "") (eq .Role "user") }}<|user|>\n{{ end }}'
        "{{ .Content }}{{ $before = .Role }}{{ end }}"
        '{{ if eq $before "user" }}</s>\n<|assistant|>\n{{ end }}'
    )


def test_a_template_that_go_can_not_follow_is_refused() -> None:
    counting = "{% for m in messages %}[{{ loop.index }}]{{ m['content'] }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"can't be written for Ollama \(it writes the same"):
        go_template(ChatTemplate(counting))


class TestRemoving:
    @pytest.fixture
    def run(self, whole_run: Run, tmp_path: Path) -> Path:
        folder = tmp_path / "runs" / "mine"
        folder.mkdir(parents=True)
        shutil.copy(whole_run.path / "recipe.yaml", folder)
        (folder / "merged").mkdir()
        (folder / "merged" / "model.safetensors").write_bytes(b"weights")
        return folder

    def test_a_run_that_nobody_needs_goes_whole(self, run: Path) -> None:
        remove_run(run)
        assert list(run.parent.iterdir()) == []

    @pytest.mark.parametrize("key", ["base", "data"])
    def test_what_another_run_is_made_from_stays(self, run: Path, key: str) -> None:
        other = run.parent / "other"
        other.mkdir()
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe[key]["source"] = str(run / "merged")
        (other / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        with pytest.raises(ConfigError, match=rf"not removed: {key}.source of the run .*other is"):
            remove_run(run)
        assert (run / "merged" / "model.safetensors").exists()

    def test_a_run_inside_it_stays(self, run: Path) -> None:
        shutil.copytree(run, run / "inner")
        with pytest.raises(ConfigError, match="inner lies in it"):
            remove_run(run)

    def test_a_run_in_use_stays(self, run: Path) -> None:
        with serving(run), pytest.raises(ConfigError, match="a server is using it"):
            remove_run(run)
        with working(run), pytest.raises(ConfigError, match="is working on it"):
            remove_run(run)
        remove_run(run)

    def test_a_link_is_not_followed(self, run: Path) -> None:
        link = run.parent / "link"
        link.symlink_to(run)
        with pytest.raises(ConfigError, match="is a link to"):
            remove_run(link)
        assert (run / "recipe.yaml").exists()

    def test_what_shares_its_bytes_by_hard_links_keeps_them(self, run: Path) -> None:
        other = run.parent.parent / "elsewhere.safetensors"
        other.hardlink_to(run / "merged" / "model.safetensors")
        remove_run(run)
        assert other.read_bytes() == b"weights"


def test_keys_of_the_file_tell_where_it_comes_from(whole_run: Run) -> None:
    from housecall.gguf.files import GgufFile

    fields = GgufFile(whole_run.path / "variants" / "gguf-q8_0" / "model.gguf").fields
    entries = {e["kind"]: e for e in chain(whole_run.artifact("variants/gguf-q8_0"))}
    assert fields["housecall.base.sha256"] == entries["base"]["sha256"]
    assert fields["housecall.base.licence"] == "not stated"
    assert fields["housecall.dataset.source_sha256"] == entries["dataset"]["source_sha256"]
    assert json.loads(fields["housecall.adapter.config"]) == entries["adapter"]["config"]
    assert fields["housecall.merged"] == entries["merged"]["sha256"]
    assert not any(str(whole_run.path.parent) in str(v) for v in fields.values())
