"""A ZIP archive of images is read as a tar of them is, and what is wrong with one is said."""

import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from m1.errors import Reason
from m1train.data.decode import MAX_IMAGE_BYTES
from reading import read, refused

_FLAGS_IN_DIRECTORY, _SIZE_IN_DIRECTORY = 8, 24


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.with_name("images.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def with_member(path: Path, name: str, content: bytes = b"x", mode: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def test_a_zip_is_the_same_dataset_as_its_folder(root: Path, own_images: Path) -> None:
    expected = read(root, own_images).content_sha256
    assert read(root, zipped(own_images, "some/where/")).content_sha256 == expected
    named_as_a_tar = shutil.copy(zipped(own_images), own_images.with_name("images.tar"))
    assert read(root, named_as_a_tar).content_sha256 == expected


@pytest.mark.parametrize(
    ("name", "mode", "sentence"),
    [
        ("../train/0/x.png", stat.S_IFREG, "leads out of the archive"),
        ("/train/0/x.png", stat.S_IFREG, "leads out of the archive"),
        ("train/0/x.png", stat.S_IFLNK, "is a link: unpack it and name the folder"),
        ("train/0/x.png", stat.S_IFIFO, "is neither a file nor a folder"),
        ("train/0/0.png", stat.S_IFREG, "stands twice in the archive"),
        ("train/cover.png", stat.S_IFREG, "is not in a class's folder"),
        ("train/0/x.png", stat.S_IFREG, "is not an image that can be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_something_odd_in_it_is_refused_by_the_name(
    root: Path, own_images: Path, name: str, mode: int, sentence: str
) -> None:
    archive = with_member(zipped(own_images), name, mode=mode)
    error = refused(root, archive)
    assert error.reason is Reason.BAD_DATA
    assert f'"{archive}:{name}" {sentence}' in str(error)


def test_a_picture_that_unpacks_to_more_than_a_picture_is_is_not_unpacked(root: Path, own_images: Path) -> None:
    archive = with_member(zipped(own_images), "train/0/bomb.png", bytes(MAX_IMAGE_BYTES + 1))
    assert archive.stat().st_size < 1 << 20
    assert "/bomb.png" in (message := refused(root, archive).message)
    assert "has 67,108,865 bytes, and an image has at most 67,108,864" in message


def test_a_zip_that_lies_is_cut_or_has_a_password_says_so(root: Path, own_images: Path) -> None:
    archive = zipped(own_images)
    whole = archive.read_bytes()
    entry = whole.index(b"PK\x01\x02")

    def with_byte(offset: int, byte: int) -> None:
        content = bytearray(whole)
        content[entry + offset] = byte
        archive.write_bytes(content)

    with_byte(_FLAGS_IN_DIRECTORY, 1)
    assert "cannot be read as an archive (it has a password)" in refused(root, archive).message
    with_byte(_SIZE_IN_DIRECTORY, 7)
    assert "cannot be read as an archive (Bad CRC-32" in refused(root, archive).message
    archive.write_bytes(whole[: len(whole) // 2])
    error = refused(root, archive)
    assert "cannot be read as an archive (File is not a zip file)" in error.message
    assert error.hint == "make it again, or unpack it and name the folder"


def test_the_names_of_other_systems_are_understood(root: Path, own_images: Path) -> None:
    (own_images / "train" / "0").rename(own_images / "train" / "café")
    shutil.rmtree(own_images / "test" / "0")
    archive = zipped(own_images)
    content = archive.read_bytes()
    # As Macs write it: UTF-8 without the flag that says so.
    with zipfile.ZipFile(archive) as opened:
        flagged = [info for info in opened.infolist() if info.flag_bits & 0x800]
    assert flagged
    archive.write_bytes(content.replace(b"\x00\x08\x00\x00", b"\x00\x00\x00\x00"))
    with zipfile.ZipFile(archive) as opened:
        assert not any(info.flag_bits & 0x800 for info in opened.infolist())
    assert "café" in read(root, archive).manifest.classes


def test_a_zip_of_old_windows_has_its_folders_too(root: Path, own_images: Path) -> None:
    expected = read(root, own_images).content_sha256
    path = own_images.with_name("windows.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(own_images.rglob("*.png")):
            info = zipfile.ZipInfo("pictures\\" + str(file.relative_to(own_images)).replace("/", "\\"))
            info.create_system = 0
            archive.writestr(info, file.read_bytes())
    assert read(root, path).content_sha256 == expected
