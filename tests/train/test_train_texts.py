"""Texts as data: a file, a folder, Python's own library; stored as UTF-8, cut between characters."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from m1train.data.cache import Dataset
from m1train.data.sources.text import STDLIB_BYTES, stdlib
from reading import TEXT, read, refused


def texts(dataset: Dataset, split: str) -> list[bytes]:
    """The documents of a split."""
    arrays = dataset.splits[split]
    data, offsets = arrays["text"].tobytes(), arrays["text_offsets"].tolist()
    return [data[start:end] for start, end in itertools.pairwise(offsets)]


def whole(dataset: Dataset) -> bytes:
    return b"".join(b"".join(texts(dataset, split)) for split in dataset.splits)


def test_a_file_is_cut_before_its_last_tenth(root: Path, tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(100)).encode()
    (tmp_path / "book.txt").write_bytes(text)
    dataset = read(root, tmp_path / "book.txt", needs=TEXT)
    assert whole(dataset) == text
    assert len(dataset.splits["test"]["text"]) == len(text) // 10
    assert dataset.manifest.rows == {"train": 1, "test": 1}
    assert dataset.columns["text"].dtype == "uint8"
    assert isinstance(dataset.splits["train"]["text"], np.memmap)
    assert not dataset.manifest.notes


@pytest.mark.parametrize("n", range(30, 36))
def test_no_character_is_divided_by_the_cut(root: Path, tmp_path: Path, n: int) -> None:
    (tmp_path / "book.txt").write_text("é€😀" * n, encoding="utf-8")
    dataset = read(root, tmp_path / "book.txt", needs=TEXT)
    for split in ("train", "test"):
        assert texts(dataset, split)[0].decode()
    assert whole(dataset).decode() == "é€😀" * n


def test_a_folder_is_read_recursively_in_order_and_litter_is_passed_over(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    for name, text in (("c.md", "third" * 8), ("b/x.txt", "second" * 8), ("a.py", "first" * 8), ("b/empty.txt", "")):
        (folder / name).write_text(text)
    for litter in (".DS_Store", "b/._x.txt", "Thumbs.db", "Icon\r"):
        (folder / litter).write_text("litter")
    (folder / "cover.png").write_bytes(b"\x89PNG")
    dataset = read(root, folder, needs=TEXT)
    assert whole(dataset).decode() == "first" * 8 + "second" * 8 + "third" * 8
    assert dataset.manifest.rows == {"train": 3, "test": 1}
    assert list(dataset.manifest.notes) == ["1 file that is not a text was skipped"]


def test_a_folder_with_splits_keeps_them(root: Path, tmp_path: Path) -> None:
    for split in ("train", "Validation"):
        (tmp_path / "texts" / split).mkdir(parents=True)
        (tmp_path / "texts" / split / "a.txt").write_text(split * 5)
    dataset = read(root, tmp_path / "texts", needs=TEXT)
    assert (texts(dataset, "train"), texts(dataset, "test")) == ([b"train" * 5], [b"Validation" * 5])
    assert list(dataset.manifest.notes) == ['the folder "Validation" is taken as the test split']
    (tmp_path / "texts" / "odd.txt").write_text("odd")
    assert "is neither in train nor in test" in refused_after(root, tmp_path / "texts")


def refused_after(root: Path, path: Path) -> str:
    for directory in root.iterdir():
        directory.rename(root.parent / directory.name)
    return refused(root, path, needs=TEXT).message


def test_a_folder_that_happens_to_be_called_test_is_no_split(root: Path, tmp_path: Path) -> None:
    for path in ("src/a.py", "test/b.py"):
        (tmp_path / "code" / path).parent.mkdir(parents=True)
        (tmp_path / "code" / path).write_text(path * 20)
    assert whole(read(root, tmp_path / "code", needs=TEXT)).decode() == "src/a.py" * 20 + "test/b.py" * 20


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_of_the_byte_order_is_obeyed_and_left_out(root: Path, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "book.txt").write_text("Grüße " * 20, encoding=encoding)
    dataset = read(root, tmp_path / "book.txt", needs=TEXT)
    assert whole(dataset).decode() == "Grüße " * 20
    assert not dataset.manifest.notes


def test_what_is_not_utf_8_is_read_as_latin_1_and_said_so(root: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("Grüße ".encode("latin-1") * 20)
    dataset = read(root, tmp_path / "book.txt", needs=TEXT)
    assert whole(dataset).decode() == "Grüße " * 20
    assert "was not UTF-8 and was read as Latin-1" in dataset.manifest.notes[0]


def test_what_is_no_text_is_refused_by_its_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"\x00\x01\xff" * 50)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    assert f'"{tmp_path / "book.txt"}" is not a text' in refused(root, tmp_path / "book.txt", needs=TEXT).message
    assert "is empty (0 bytes)" in refused(root, tmp_path / "empty.txt", needs=TEXT).message
    assert "holds no text" in refused(root, tmp_path / "folder", needs=TEXT).message


def test_the_standard_library_is_a_bounded_text_of_whole_modules(root: Path) -> None:
    dataset = read(root, "stdlib", needs=TEXT)
    size = sum(len(arrays["text"]) for arrays in dataset.splits.values())
    assert STDLIB_BYTES * 0.8 < size <= STDLIB_BYTES
    assert dataset.manifest.source == "the source of Python's own standard library"
    assert b"import" in texts(dataset, "train")[0]
    assert stdlib().fingerprint == stdlib().fingerprint


def test_a_changed_text_is_read_again(root: Path, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("one " * 50)
    first = read(root, book, needs=TEXT)
    book.write_text("two " * 60)
    second = read(root, book, needs=TEXT)
    assert first.content_sha256 != second.content_sha256
    assert whole(second) == b"two " * 60
