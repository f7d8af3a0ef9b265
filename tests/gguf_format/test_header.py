"""Hostile and damaged GGUF files: one line, and no memory by a header's word."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from housecall.errors import ArtifactError
from housecall.gguf.header import BLOCKS, read_header

HUGE = 2**63


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def array(kind: int, count: int, raw: bytes) -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + raw


def number(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def tensor(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


KEYS = {
    "general.architecture": struct.pack("<I", 8) + text("llama"),
    "general.alignment": number(32),
    "llama.block_count": number(2),
    "llama.rope.freq_base": struct.pack("<If", 6, 10_000.0),
    "tokenizer.ggml.tokens": array(8, 2, text("a") + text("\u0120b")),
    "tokenizer.ggml.scores": array(6, 2, struct.pack("<2f", 0.0, -1.5)),
}
TENSORS = [tensor("a.weight", [32, 2], 2, 0), tensor("b.weight", [3], 0, 64)]


def build(
    keys: dict[str, bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    key_count: int | None = None,
    tensor_count: int | None = None,
    data: int = 64 + 12,
    begin: bytes = b"GGUF\x03\x00\x00\x00",
) -> bytes:
    """A GGUF file of two tensors, or one that lies in what is given."""
    keys = KEYS if keys is None else keys
    tensors = TENSORS if tensors is None else tensors
    counts = struct.pack(
        "<QQ",
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = begin + counts + b"".join(text(k) + v for k, v in keys.items()) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


VALID = build()


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Any]:
    file = tmp_path_factory.mktemp("header") / "x.gguf"

    def read(content: bytes) -> Any:
        file.write_bytes(content)
        return read_header(file)

    return read


def test_a_valid_file(read: Callable[[bytes], Any]) -> None:
    header = read(VALID)
    assert header.fields == {
        "general.architecture": "llama",
        "general.alignment": 32,
        "llama.block_count": 2,
        "llama.rope.freq_base": 10_000.0,
        "tokenizer.ggml.tokens": ["a", "\u0120b"],
        "tokenizer.ggml.scores": [0.0, -1.5],
    }
    first, second = header.tensors
    assert (first.name, first.dims, first.kind, first.nbytes) == ("a.weight", (2, 32), 2, 36)
    assert (second.start - first.start, second.nbytes) == (64, 12)
    assert second.start + second.nbytes == len(VALID)


def with_key(value: bytes, key: str = "x") -> bytes:
    return build({**KEYS, key: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short at byte 0"),
        (b"PK\x03\x04" + bytes(500), "does not begin with GGUF"),
        (build(begin=b"GGUF\x01\x00\x00\x00"), "version 0x1 is not"),
        (build(begin=b"GGUF\x00\x00\x00\x03"), "version 0x3000000 is not .*little-endian"),
        (build(key_count=HUGE), "claims 9223372036854775808 keys in the .* bytes"),
        (build(tensor_count=HUGE), "claims 9223372036854775808 tensors in the"),
        (with_key(struct.pack("<IQ", 8, HUGE)), "x: a text of 9223372036854775808 bytes"),
        (with_key(struct.pack("<IQ", 8, 1 << 20)), "cut short"),
        (with_key(array(4, HUGE, b"")), "x claims 9223372036854775808 elements"),
        (with_key(array(4, 1 << 20, b"")), "claims 1048576 elements in the key x in the"),
        (with_key(array(8, 1 << 20, b"")), "claims 1048576 strings in the key x in the"),
        (with_key(array(9, 1, b"")), "x is an array of type 9, which can't be"),
        (with_key(struct.pack("<I", 77)), "x is of type 77, which does not exist"),
        (with_key(struct.pack("<IQ", 8, 2) + b"\xff\xfe"), "x: a text that is not UTF-8"),
        (with_key(number(1), "k" * 70_000), "a key: a text of 70000 bytes"),
        (with_key(struct.pack("<I", 77), "a\nb"), r"the key 'a\\nb' is of type 77"),
        (with_key(number(0), "general.alignment"), "alignment 0 is not a power of two"),
        (with_key(number(24), "general.alignment"), "alignment 24 is not a power of two"),
        (with_key(number(1 << 31), "general.alignment"), "alignment 2147483648 is not"),
        (with_key(struct.pack("<I", 8) + text("\n"), "general.alignment"), "is not a power"),
        (build(tensors=[TENSORS[0], TENSORS[0]]), "a.weight is there twice"),
        (build(tensors=[tensor("t" * 64, [32], 0, 0)]), "a tensor's name: a text of 64 bytes"),
        (build(tensors=[tensor("t", [], 0, 0)]), "t has 0 dimensions"),
        (build(tensors=[tensor("t", [1] * 5, 0, 0)]), "t has 5 dimensions"),
        (build(tensors=[tensor("t", [32, 0], 0, 0)]), "t is empty"),
        (build(tensors=[tensor("t", [33], 2, 0)]), "t has rows of 33 in blocks of 32"),
        (build(tensors=[tensor("t", [32], 4, 0)]), "t is of type 4, which is not known"),
        (build(tensors=[tensor("t", [HUGE] * 4, 0, 0)]), "t claims more bytes than there are"),
        (build(tensors=[tensor("t", [4], 0, HUGE)]), "t claims more bytes than there are"),
        (build(tensors=[tensor("t", [4], 0, 32)]), "t lies at 32, not at 0"),
        (
            build(tensors=[tensor("s", [32], 0, 0), tensor("t", [4], 0, 32)], data=256),
            "t lies at 32, not at 128",
        ),
        (VALID[:-1], "cut short: 1 bytes of b.weight are gone"),
    ],
)
def test_a_file_that_lies(read: Callable[[bytes], Any], content: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as error:
        read(content)
    assert "x.gguf: not a readable GGUF file (" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_given_twice(read: Callable[[bytes], Any]) -> None:
    twice = b"".join(text("x") + number(1) for _ in range(2))
    with pytest.raises(ArtifactError, match="the key x is there twice"):
        read(b"GGUF\x03\x00\x00\x00" + struct.pack("<QQ", 0, 2) + twice)


def test_every_cut_is_an_error(read: Callable[[bytes], Any]) -> None:
    for size in range(len(VALID)):
        with pytest.raises(ArtifactError):
            read(VALID[:size])


mutations = st.lists(
    st.tuples(
        st.integers(0, len(VALID) - 1),
        st.one_of(st.binary(min_size=1, max_size=2), st.sampled_from([b"\xff" * 8, bytes(8)])),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations, st.integers(0, len(VALID)))
@example([(16, b"\xff" * 8)], 0)
@example([(8, b"\xff" * 8)], 0)
def test_no_mutation_raises_anything_else_or_takes_memory(
    read: Callable[[bytes], Any], changes: list[tuple[int, bytes]], cut: int
) -> None:
    content = bytearray(VALID)
    for at, new in changes:
        content[at : at + len(new)] = new
    tracemalloc.start()
    try:
        read(bytes(content[: len(content) - cut]))
    except ArtifactError as error:
        message = str(error)
    else:
        message = ""
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "\n" not in message
    assert peak < 1_000_000


def test_the_table_of_types_is_that_of_the_official_package() -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra train")
    theirs = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert theirs == BLOCKS
