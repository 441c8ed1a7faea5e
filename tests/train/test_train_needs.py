"""What a source is read for: one name in the cache for several needs, old caches as they were, a version kept."""

import gzip
import json
import os
import shutil
import tarfile
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from conftest import write_images
from m1.columns import IMAGES_OF_32, Need, fits, image_need, key_of_needs, normalised
from m1.datasets import cached_datasets, check_source, kinds_of
from m1.errors import M1Error, Reason
from m1train.data.cache import newest, open_dataset, read_manifest
from m1train.data.prepare import prepare
from m1train.data.sources.digits import Digits
from reading import TEXT, images_of, read, refused, silent

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
ZIP_OF_NPY = b"PK\3\4" + bytes(22) + b"\5\0\0\0a.npy"
# As 0.1.0 read it: 120 of scikit-learn's digits, and all of them.
SHA256_OF_120 = "6dec49549986b7eade0e2d9bf8240fc5bce792b14d8b281c600e08deb5a93024"
DIGITS = ("digits-f14e29fc94d2a436", "086176b56dbed9e09cdaa7710be57b03c1c8df62dc30170db2738be93d0d4855")


def test_what_0_1_0_read_has_the_key_and_the_hash_that_it_gave(root: Path, images: Path) -> None:
    assert read(root, images).content_sha256 == SHA256_OF_120
    directory = prepare(root, "digits", silent)
    assert (directory.name, open_dataset(directory).content_sha256) == DIGITS


def test_a_cache_of_0_1_0_opens_as_columns(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[1] / "fixtures" / "home-0.1.0.tar.xz") as tar:
        tar.extractall(tmp_path, [member for member in tar if member.name.startswith("data")], filter="data")
    directory = newest(tmp_path / "data", "few")
    assert directory is not None
    dataset = open_dataset(directory)
    assert dataset.content_sha256 == SHA256_OF_120
    assert {name: (c.kind, tuple(c.shape)) for name, c in dataset.columns.items()} == {
        "image": ("image", (32, 32, 3)),
        "label": ("label", ()),
    }
    assert list(dataset.columns["label"].classes) == [str(i) for i in range(10)]
    assert {split: arrays["image"].shape for split, arrays in dataset.splits.items()} == {
        "train": (90, 32, 32, 3),
        "test": (30, 32, 32, 3),
    }
    assert dataset.manifest.rows == {"train": 90, "test": 30}
    assert tuple(dataset.manifest.needs) == IMAGES_OF_32


def test_one_source_is_in_the_cache_once_for_each_need(root: Path, own_images: Path) -> None:
    small, large = read(root, own_images), read(root, own_images, needs=images_of(48, "crop"))
    assert small.splits["train"]["image"].shape == (30, 32, 32, 3)
    assert large.splits["train"]["image"].shape == (30, 48, 48, 3)
    assert small.content_sha256 != large.content_sha256
    assert np.array_equal(small.splits["train"]["label"], large.splits["train"]["label"])
    assert read(root, own_images).content_sha256 == small.content_sha256, "neither is read in place of the other"
    assert [dict(d.needs[0].options)["size"] for d in cached_datasets(root)] == ["32", "48"]
    manifest = read_manifest(prepare(root, str(own_images), silent, needs=images_of(48, "crop")))
    assert manifest is not None
    assert dict(manifest.columns[0].options) == {"fit": "crop", "size": "48"}


def test_an_imported_name_is_read_again_for_another_need_as_long_as_its_source_is_there(
    root: Path, own_images: Path
) -> None:
    read(root, own_images, "mine")
    assert read(root, "mine", needs=images_of(40)).splits["train"]["image"].shape[1] == 40
    shutil.rmtree(own_images)
    assert read(root, "mine", needs=images_of(40)).splits["train"]["image"].shape[1] == 40
    with pytest.raises(M1Error) as raised:
        read(root, "mine", needs=images_of(64))
    assert raised.value.reason is Reason.DATASET_NOT_FOUND
    assert "its source" in raised.value.message
    assert "images of 64 px (squeeze)" in raised.value.message


def test_a_job_keeps_the_version_that_it_began_with_whatever_becomes_of_the_source(
    root: Path, own_images: Path
) -> None:
    began = read(root, own_images)
    (own_images / "train" / "stray.png").write_text("left here by mistake")

    def resumed() -> str:
        directory = prepare(root, str(own_images), silent, content_sha256=began.content_sha256)
        return open_dataset(directory).content_sha256

    assert resumed() == began.content_sha256
    with pytest.raises(M1Error, match="is not in a class's folder"):
        prepare(root, str(own_images), silent)
    (own_images / "train" / "stray.png").unlink()
    (own_images / "train" / "0" / "0.png").unlink()
    assert read(root, own_images).content_sha256 != began.content_sha256
    assert resumed() == began.content_sha256
    shutil.rmtree(own_images)
    assert resumed() == began.content_sha256


def test_equal_needs_have_one_key_and_that_of_0_1_0_has_none() -> None:
    assert key_of_needs(normalised((Need("label"), Need("image")))) == ""
    assert key_of_needs(images_of(64)) == key_of_needs(normalised((Need("image", {"size": "64"}), Need("label"))))
    assert images_of(64, background="#FFFFFF") == images_of(64)
    assert images_of(64, background="black") == images_of(64, background="#000000")
    assert len({key_of_needs(images_of(size, fit)) for size in (32, 64) for fit in ("squeeze", "crop", "pad")}) == 6


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 7}, "settings.size"),
        ({"size": 1025}, "settings.size"),
        ({"size": "big"}, "settings.size"),
        ({"fit": "stretch"}, "settings.fit"),
        ({"background": "mauve"}, "settings.background"),
        ({"height": 3}, "settings.height"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_field(options: dict[str, object], field: str) -> None:
    with pytest.raises(M1Error) as raised:
        image_need(options)
    assert (raised.value.reason, raised.value.field) == (Reason.INVALID_SETTING, field)


def test_what_a_source_has_is_known_before_it_is_read(root: Path, tmp_path: Path, own_images: Path) -> None:
    for name in ("houses.csv", "book.txt", "notes.md", "a_text"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "images.tar.xz").write_bytes(b"\xfd7zXZ\0")
    (tmp_path / "archive.zip").write_bytes(b"PK\3\4" + bytes(40))
    (tmp_path / "unknown").write_bytes(b"\1\2\0")
    (tmp_path / "poems" / "deep").mkdir(parents=True)
    (tmp_path / "poems" / "deep" / "one.txt").write_text("verse")
    (tmp_path / "poems" / "deep" / "two.txt").write_text("verse")
    (tmp_path / "poems" / "cover.png").write_bytes(b"x")
    (own_images / "readme.txt").write_text("a readme makes no text of pictures")
    images, text = ("image", "label"), ("text",)
    known: dict[str, tuple[str, ...] | None] = {"houses.csv": ("vector",), "book.txt": text, "notes.md": text}
    known |= {"images.tar.xz": images, "poems": text, own_images.name: images, "archive.zip": images, "a_text": text}
    known |= {"unknown": None}
    assert {name: kinds_of(root, str(tmp_path / name)) for name in known} == known
    assert [kinds_of(root, name) for name in ("digits", "cifar10", "stdlib", "nobody")] == [images, images, text, None]
    read(root, tmp_path / "book.txt", "book", TEXT)
    assert kinds_of(root, "book") == text
    assert fits(TEXT, text)


@pytest.mark.parametrize(
    ("name", "content", "called", "hint"),
    [
        ("house.csv", b"a,b\n1,2\n", "a CSV table", "use a recipe that reads it itself"),
        ("house.tsv", b"a\tb\n1\t2\n", "a TSV table", "use a recipe that reads it itself"),
        ("house", b"a,b,c\n1,2,3\n4,5,6\n", "a CSV table", "use a recipe that reads it itself"),
        ("book.txt", b"Call me Ishmael.", "a text file", "choose other data, or another recipe"),
        ("labels.json", b'{"a": 1}', "a JSON file", "use a recipe that reads it itself"),
        ("photos.7z", b"7z\xbc\xaf'\x1c", "a 7-Zip archive", "unpack it and name the folder"),
        ("IMG_1.HEIC", HEIC, "a HEIC picture", "export such pictures as JPEG"),
        ("clip", b"\0\0\0\x18ftypisom", "a film", "export its frames"),
        ("one.jpg", b"\xff\xd8\xff\xe0", "a single picture", "name a folder that holds a folder of pictures"),
        ("one", b"\x89PNG\r\n\x1a\n", "a single picture", "name a folder that holds a folder of pictures"),
        ("paper", b"%PDF-1.7\n", "a PDF", "export its text"),
        ("table.parquet", b"PAR1\0\0", "a Parquet table", "use a recipe that reads it itself"),
        ("arrays.npz", ZIP_OF_NPY, "a NumPy archive", "use a recipe that reads it itself"),
        ("array", b"\x93NUMPY\1\0", "a NumPy array", "use a recipe that reads it itself"),
        ("model.safetensors", b"\2" + bytes(7) + b"{}", "a safetensors file", "to start from weights use"),
        ("model.pkl", b"\x80\x05K\1.", "a Python pickle", "m1d unpickles nothing"),
        ("house.csv.gz", gzip.compress(b"a,b\n"), "a compressed file with no tar in it", "unpack it first"),
        ("fake.png", b"a,b\n1,2\n", "a CSV table", "use a recipe that reads it itself"),
    ],
)
def test_a_file_that_is_no_dataset_is_called_by_its_name_whatever_it_is_called(
    root: Path, tmp_path: Path, name: str, content: bytes, called: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused(root, tmp_path / name)
    assert error.reason is Reason.BAD_DATA
    wanted = "images of 32 px (squeeze) and a label for each"
    assert error.message == f'"{tmp_path / name}" is {called}; expected {wanted}'
    assert error.hint.startswith(hint)


def test_a_path_that_is_not_there_says_on_whose_disk_it_was_looked_for(root: Path) -> None:
    message = refused(root, "/nowhere/flowers").message
    assert message == f'data "/nowhere/flowers" does not exist on {gethostname()}, where it is to be trained'


def test_a_pipe_and_an_empty_file_are_refused_without_being_opened(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.csv").touch()
    assert f'"{tmp_path / "pipe"}" is neither a file nor a folder' in refused(root, tmp_path / "pipe").message
    assert f'"{tmp_path / "empty.csv"}" is empty (0 bytes)' in refused(root, tmp_path / "empty.csv").message


def test_a_folder_of_something_else_says_what_it_holds(root: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "arrays" / name).mkdir(parents=True)
        np.save(tmp_path / "arrays" / name / "x.npy", np.zeros(3))
        (tmp_path / "tables" / name).mkdir(parents=True)
        (tmp_path / "tables" / name / "x.csv").write_text("a,b\n1,2\n")
    assert "is a class without an image: it has a NumPy array" in refused(root, tmp_path / "arrays").message
    assert '/tables" has tables; expected images' in refused(root, tmp_path / "tables").message


def test_a_recipe_that_needs_what_no_source_has_is_refused(root: Path, own_images: Path) -> None:
    assert '" has images and a label for each; expected text' in refused(root, own_images, "", TEXT).message
    error = refused(root, own_images, "", (Need("image"), Need("caption")))
    assert "cannot be read as images of 32 px (squeeze) and captions" in error.message


def test_what_is_cached_for_these_needs_is_good_and_for_others_is_not(root: Path, own_images: Path) -> None:
    read(root, own_images, "mine")
    shutil.rmtree(own_images)
    check_source(root, "mine", IMAGES_OF_32)
    check_source(root, "mine")
    with pytest.raises(M1Error, match="would have to be read from it"):
        check_source(root, "mine", images_of(64))


def test_digits_are_drawn_at_the_size_that_is_asked_for(root: Path) -> None:
    dataset = read(root, "digits", needs=images_of(16))
    assert dataset.splits["train"]["image"].shape == (1442, 16, 16, 3)
    assert dataset.content_sha256 != DIGITS[1]
    assert next(Digits().samples(silent)).pixels.shape == (32, 32, 3)


def test_damage_to_any_column_is_seen(root: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "some", 3, 1)
    for name in ("train_images.npy", "test_labels.npy"):
        directory = prepare(root, str(images), silent)
        path = directory / name
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(M1Error, match="is damaged") as raised:
            open_dataset(directory)
        assert raised.value.reason is Reason.BAD_DATA
        shutil.rmtree(directory)
    directory = prepare(root, str(images), silent)
    (directory / "dataset.json").write_text(json.dumps({"name": 1}))
    assert read_manifest(directory) is None
