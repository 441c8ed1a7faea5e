"""Datasets: read once, whole or not at all; what is wrong with one is said with the file's name."""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from m1.datasets import cached_datasets
from m1.errors import M1Error, Reason
from m1train.data.decode import MAX_IMAGE_BYTES
from m1train.data.prepare import prepare
from m1train.data.scratch import scratch_directory
from m1train.data.sources import cifar10
from PIL import Image
from reading import read, refused, silent


def packed(folder: Path, path: Path, mode: str = "w:gz", prefix: str = "some/where/", *parts: str) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for part in parts or ("train", "test"):
            tar.add(folder / part, prefix + part)
    return path


def with_member(path: Path, member: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(path, "a") as tar:
        member.size = len(content) if member.isfile() else 0
        tar.addfile(member, io.BytesIO(content))
    return path


def test_a_folder_is_read_as_it_is(root: Path, own_images: Path) -> None:
    dataset = read(root, own_images)
    manifest = dataset.manifest
    assert (manifest.name, manifest.rows["train"], manifest.rows["test"]) == (str(own_images), 30, 10)
    assert list(manifest.classes) == [str(i) for i in range(10)]
    assert np.bincount(dataset.splits["train"]["label"]).tolist() == [3] * 10
    with Image.open(own_images / "train" / "4" / "2.png") as image:
        assert np.array_equal(dataset.splits["train"]["image"][4 * 3 + 2], np.asarray(image.convert("RGB")))
    assert [found.name for found in cached_datasets(root)] == [str(own_images)]


@pytest.mark.parametrize(("mode", "prefix"), [("w", ""), ("w:gz", "a/"), ("w:bz2", "./a/b/"), ("w:xz", "a/b/c/")])
def test_a_tar_is_the_same_data_set_as_its_folder(root: Path, own_images: Path, mode: str, prefix: str) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", mode, prefix)
    assert read(root, tar).content_sha256 == read(root, own_images).content_sha256


def test_the_second_reading_takes_none_of_the_time(root: Path, own_images: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        before = len(calls)
        prepare(root, str(own_images), lambda phase, done, total: calls.append(phase))
    assert before > 0
    assert len(calls) == before


def test_a_changed_folder_is_read_again(root: Path, own_images: Path) -> None:
    first = read(root, own_images)
    (own_images / "train" / "0" / "0.png").unlink()
    second = read(root, own_images)
    assert second.manifest.rows["train"] == first.manifest.rows["train"] - 1
    assert first.splits["train"]["image"].shape[0] == 30, "who has the old one open keeps it"


def test_a_changed_tar_is_read_again(root: Path, own_images: Path) -> None:
    tar = packed(own_images, own_images.parent / "images.tar")
    read(root, tar)
    (own_images / "train" / "0" / "0.png").unlink()
    packed(own_images, tar)
    assert read(root, tar).manifest.rows["train"] == 29


def test_a_source_that_is_gone_is_still_in_the_cache(root: Path, own_images: Path) -> None:
    read(root, own_images)
    shutil.rmtree(own_images)
    assert read(root, own_images).manifest.rows["train"] == 30


def test_an_imported_data_set_is_found_by_its_name(root: Path, own_images: Path) -> None:
    read(root, own_images, name="mine")
    shutil.rmtree(own_images)
    assert read(root, "mine").manifest.name == "mine"


@pytest.mark.parametrize("name", ["digits", "a/b", ".hidden", "", " "])
def test_a_name_that_cannot_be_is_refused(root: Path, own_images: Path, name: str) -> None:
    if name:
        assert refused(root, own_images, name).reason is Reason.INVALID_NAME


def test_a_data_set_that_nobody_knows_is_refused(root: Path, tmp_path: Path) -> None:
    assert refused(root, "digit").hint == 'did you mean "digits"?'
    assert refused(root, tmp_path / "nowhere").reason is Reason.DATASET_NOT_FOUND


def test_a_name_that_is_taken_by_another_source_is_refused(root: Path, own_images: Path) -> None:
    other = shutil.copytree(own_images, own_images.with_name("other"))
    first = prepare(root, str(own_images), silent, "good")
    assert prepare(root, str(own_images), silent, "good") == first, "the same one again is at once there"
    with pytest.raises(M1Error) as raised:
        prepare(root, str(other), silent, "good")
    assert raised.value.reason is Reason.NAME_TAKEN
    assert str(raised.value) == f'the name "good" is taken by the dataset read from {own_images}: choose another'
    assert read(root, "good").manifest.source == str(own_images)


def test_a_built_in_name_is_not_imported_over(root: Path, own_images: Path) -> None:
    assert str(refused(root, own_images, "digits")) == '"digits" is built in: choose another name'


def test_only_what_has_the_numbers_of_cifar10_is_imported_as_it(
    root: Path, own_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(root, own_images, "cifar10")
    assert (error.reason, error.hint) == (Reason.BAD_DATA, "choose another name")
    assert "is not CIFAR-10: it has 10 classes, 30 training and 10 test images" in error.message
    monkeypatch.setattr(cifar10, "TRAIN_IMAGES", 30)
    monkeypatch.setattr(cifar10, "TEST_IMAGES", 10)
    other = shutil.copytree(own_images, own_images.with_name("other"))
    for source in (own_images, other, own_images):
        read(root, source, "cifar10")
        assert read(root, "cifar10").manifest.source == str(source), "the name means what was imported last"


def test_a_home_that_is_made_for_the_cache_is_closed_to_others(tmp_path: Path) -> None:
    read(tmp_path / "home" / "data", "digits")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "home", tmp_path / "home" / "data")] == [0o700] * 2


def test_a_tar_says_its_images_as_they_are_read_and_their_number_at_the_end(root: Path, own_images: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    tar = packed(own_images, own_images.parent / "images.tar")
    prepare(root, str(tar), lambda phase, done, total: seen.append((phase, done, total)))
    assert seen == [("read", done, 0) for done in range(1, 41)] + [("read", 40, 40)]


def test_what_a_killed_builder_left_is_removed_and_a_living_ones_is_not(root: Path) -> None:
    for kind in ("building", "download"):
        (root / f".{kind}-killed" / "part").mkdir(parents=True)
    with scratch_directory(root, "building") as living:
        read(root, "digits")
        assert [path for path in root.iterdir() if path.name.startswith(".")] == [living]
        with open(living / "train.raw", "wb"):
            pass
    assert not living.exists()


def test_a_builder_whose_directory_was_taken_for_abandoned_takes_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    removed: list[Path] = []

    def flock(fd: int, operation: int) -> None:
        if not removed:
            removed.extend(root.iterdir())
            removed[0].rmdir()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch_directory(root, "building") as directory:
        assert directory.exists()
        assert directory not in removed


def test_digits_are_real_and_split_in_every_class(root: Path) -> None:
    dataset = read(root, "digits")
    assert (dataset.manifest.rows["train"], dataset.manifest.rows["test"]) == (1442, 355)
    shares = np.bincount(dataset.splits["test"]["label"]) / (
        np.bincount(dataset.splits["train"]["label"]) + np.bincount(dataset.splits["test"]["label"])
    )
    assert np.abs(shares - 0.2).max() < 0.01
    assert dataset.splits["train"]["image"].max() > 200


def test_litter_of_file_managers_is_passed_over(root: Path, own_images: Path) -> None:
    for place in (own_images, own_images / "train", own_images / "test" / "3"):
        for name in (".DS_Store", "Thumbs.db", "._1.png"):
            (place / name).write_bytes(b"litter")
    tar = packed(own_images, own_images.parent / "images.tar")
    assert read(root, own_images).manifest.rows["train"] == 30
    assert read(root, tar).manifest.rows["train"] == 30


def test_other_sizes_and_modes_become_32_by_32_rgb(root: Path, own_images: Path) -> None:
    folder = own_images / "train" / "0"
    for i, (mode, size, kind) in enumerate(
        [("L", (64, 40), "png"), ("RGBA", (8, 8), "png"), ("P", (32, 32), "gif"), ("CMYK", (50, 50), "jpeg")]
    ):
        Image.new(mode, size, 200 if mode in "LP" else (10, 20, 30, 255)).save(folder / f"new{i}.{kind}")
    assert read(root, own_images).manifest.rows["train"] == 34


def an_empty_file(folder: Path) -> Path:
    (folder / "train" / "5" / "1.png").write_bytes(b"")
    return folder / "train" / "5" / "1.png"


def a_truncated_image(folder: Path) -> Path:
    path = folder / "test" / "5" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])
    return path


def a_text(folder: Path) -> Path:
    (folder / "train" / "5" / "5a").write_text("hello")
    return folder / "train" / "5" / "5a"


def a_postscript(folder: Path) -> Path:
    Image.new("RGB", (32, 32)).save(folder / "train" / "5" / "drawn.eps")
    return folder / "train" / "5" / "drawn.eps"


def an_image_too_large(folder: Path) -> Path:
    path = folder / "train" / "5" / "0.png"
    os.truncate(path, MAX_IMAGE_BYTES + 1)
    return path


def deep_pixels(folder: Path) -> Path:
    Image.new("I;16", (32, 32)).save(folder / "train" / "5" / "deep.png")
    return folder / "train" / "5" / "deep.png"


def an_empty_class(folder: Path) -> Path:
    (folder / "train" / "nothing").mkdir()
    return folder / "train" / "nothing"


def a_file_beside_the_classes(folder: Path) -> Path:
    shutil.copy(folder / "train" / "0" / "0.png", folder / "train" / "cover.png")
    return folder / "train" / "cover.png"


PROBLEMS = [
    (an_empty_file, "is empty"),
    (a_truncated_image, "cannot be read as an image"),
    (a_text, "is not an image that can be read"),
    (a_postscript, "is not an image that can be read"),
    (an_image_too_large, "has 67,108,865 bytes, and an image has at most 67,108,864"),
    (deep_pixels, "has pixels of kind I;16"),
    (an_empty_class, "is a class without an image"),
    (a_file_beside_the_classes, "is not in a class's folder"),
]


@pytest.mark.parametrize(("damage", "sentence"), PROBLEMS)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    root: Path, own_images: Path, damage: object, sentence: str, form: str
) -> None:
    assert callable(damage)
    path = damage(own_images)
    if form == "tar":
        tar = packed(own_images, own_images.parent / "images.tar")
        error = refused(root, tar)
        assert f"{tar}:some/where/{path.relative_to(own_images)}" in error.message
    else:
        error = refused(root, own_images)
        assert str(path) in error.message
    assert sentence in error.message
    assert error.reason is Reason.BAD_DATA


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_split_or_a_class_that_is_missing_is_named(root: Path, own_images: Path, form: str) -> None:
    def source() -> Path:
        return packed(own_images, own_images.parent / "i.tar") if form == "tar" else own_images

    shutil.rmtree(own_images / "train" / "7")
    assert 'of the class "7" in test and none in train' in refused(root, source()).message
    for name in "0123456789":
        if name != "5":
            for split in ("train", "test"):
                shutil.rmtree(own_images / split / name, ignore_errors=True)
    assert 'has only one class, "5"' in refused(root, source()).message
    shutil.rmtree(own_images / "train")
    (own_images / "train").mkdir() if form == "tar" else None
    assert 'has no split "train"' in refused(root, source()).message


def test_another_split_is_refused_by_its_name(root: Path, own_images: Path) -> None:
    shutil.copytree(own_images / "test", own_images / "val")
    (own_images / "val").rename(own_images / "holdout")
    for source in (own_images, packed(own_images, own_images.parent / "i.tar", "w", "some/", "holdout", "train")):
        error = refused(root, source)
        assert 'has a folder "holdout" beside its splits, and only train, test and val are known' in error.message


def test_an_empty_folder_and_an_empty_file_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert f'"{tmp_path / "folder"}" is empty' in refused(root, tmp_path / "folder").message
    assert f'"{tmp_path / "file"}" is empty' in refused(root, tmp_path / "file").message


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_that_is_cut_is_refused(root: Path, own_images: Path, mode: str) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", mode)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    error = refused(root, tar)
    assert error.reason is Reason.BAD_DATA
    assert str(tar) in error.message


def test_what_is_no_tar_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3" * 1000)
    message = refused(root, tmp_path / "song.mp3").message
    assert (
        message == f'"{tmp_path / "song.mp3"}" is a sound file; expected images of 32 px (squeeze) and a label for each'
    )
    (tmp_path / "what").write_bytes(bytes(range(256)) * 9)
    assert "is neither a folder nor an archive of images that m1d can read" in refused(root, tmp_path / "what").message


@pytest.mark.parametrize("name", ["../../etc/train/0/x.png", "/train/0/x.png", "a/../train/0/x.png"])
def test_a_tar_that_leads_out_of_itself_is_refused(root: Path, own_images: Path, name: str) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", "w", "")
    error = refused(root, with_member(tar, tarfile.TarInfo(name)))
    assert f"{tar}:{name}" in error.message
    assert "leads out of the archive" in error.message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_a_link_or_a_device_is_refused(root: Path, own_images: Path, kind: bytes) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", "w", "")
    member = tarfile.TarInfo("train/0/odd.png")
    member.type, member.linkname = kind, "train/0/0.png"
    assert f"{tar}:train/0/odd.png" in refused(root, with_member(tar, member)).message


def test_an_image_that_stands_twice_in_a_tar_is_refused(root: Path, own_images: Path) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", "w", "")
    error = refused(root, with_member(tar, tarfile.TarInfo("./train/0/0.png")))
    assert error.reason is Reason.BAD_DATA
    assert error.message == f'"{tar}:./train/0/0.png" stands twice in the archive'


@pytest.mark.parametrize("size", [10**12, -1024])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tars_header_that_claims_too_much_is_refused(root: Path, own_images: Path, kind: bytes, size: int) -> None:
    header = tarfile.TarInfo("train/0/odd.png")
    header.type, header.size = kind, size
    tar = packed(own_images, own_images.parent / "images.tar", "w", "")
    content = tar.read_bytes()
    for where in (0, 1536):  # before and after the first member, a folder with an extended header
        tar.write_bytes(content[:where] + header.tobuf(tarfile.GNU_FORMAT) + content[where:])
        error = refused(root, tar)
        assert error.reason is Reason.BAD_DATA
        assert str(tar) in error.message
        assert "train/0/odd.png" in error.message
        assert f"{size:,} bytes" in error.message


@pytest.mark.parametrize("size", ["1000000000000", "-1024"])
def test_a_size_in_an_extended_header_that_cannot_be_is_refused(root: Path, own_images: Path, size: str) -> None:
    tar = packed(own_images, own_images.parent / "images.tar", "w", "")
    member = tarfile.TarInfo("train/0/odd.png")
    member.pax_headers = {"size": size}
    error = refused(root, with_member(tar, member))
    assert error.message.startswith(f'"{tar}:train/0/odd.png" has {int(size):,} bytes')


def test_two_builders_at_once_make_one_whole_data_set(root: Path, own_images: Path) -> None:
    command = [sys.executable, "-m", "m1train", "prepare", "--data-root", str(root), "--source", str(own_images)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [builder.communicate()[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert all(json.loads(output.splitlines()[-1])["dataset"]["rows"]["train"] == 30 for output in outputs)
    assert len(list(root.iterdir())) == 1


def test_prepare_says_its_progress_and_its_error_in_json_lines(root: Path, own_images: Path) -> None:
    command = [sys.executable, "-m", "m1train", "prepare", "--data-root", str(root), "--source", str(own_images)]
    good = subprocess.run([*command, "--name", "mine"], capture_output=True, check=True, text=True)
    *progress, last = (json.loads(line) for line in good.stdout.splitlines())
    assert progress[-1] == {"progress": {"phase": "read", "done": 40, "total": 40}}
    assert last["dataset"]["name"] == "mine"
    path = an_empty_file(own_images)
    bad = subprocess.run(command, capture_output=True, check=False, text=True)
    assert bad.returncode == 1
    error = json.loads(bad.stdout.splitlines()[-1])["error"]
    assert error["reason"] == "BAD_DATA"
    assert str(path) in error["message"]
    assert set(error) == {"reason", "message", "hint", "field", "value"}


@pytest.mark.parametrize(("raised", "reason"), [("MemoryError", "OUT_OF_MEMORY"), ("AttributeError", "INTERNAL")])
def test_prepare_says_what_nobody_expected_as_an_error_too(root: Path, raised: str, reason: str) -> None:
    code = (
        "import m1train.data.prepare as p, sys; from m1train.__main__ import main\n"
        f"def prepare(*_): raise {raised}('odd')\n"
        f"p.prepare = prepare; sys.exit(main(['prepare', '--data-root', {str(root)!r}, '--source', 'digits']))"
    )
    bad = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["error"]["reason"] == reason
    assert f"{raised}: odd" in bad.stderr
    assert "Traceback" in bad.stderr


def test_preparing_imports_no_torch(root: Path, own_images: Path) -> None:
    arguments = ["prepare", "--data-root", str(root), "--source", str(own_images)]
    code = f"import sys; from m1train.__main__ import main; main({arguments!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
