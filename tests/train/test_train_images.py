"""Images into the cache: any size and fit, upright, on a background, in bounded memory; folders as people have them."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from m1.errors import M1Error, Reason
from m1train.data import fit as fitting
from m1train.data.decode import Budget, ImageFile, decode
from m1train.data.fit import Fit
from PIL import Image, PngImagePlugin
from reading import images_of, read, refused

ORIENTATION = 0x0112


def gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    noise = np.arange(width * height).reshape(height, width) * 37 % 256
    return Image.fromarray(np.stack([across, down, noise], -1).astype(np.uint8)).convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image: Image.Image | bytes, fit: Fit | None = None, kind: str = "PNG") -> np.ndarray:
    content = image if isinstance(image, bytes) else saved(image, kind)
    return decode(ImageFile("train", "0", "x", "x", content), fit or Fit()).pixels


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
@pytest.mark.parametrize("size", [(32, 32), (50, 41), (7, 90)])
def test_squeezed_to_32_the_bits_are_those_of_0_1_0(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = gradient(*size, mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    rgb = image.convert("RGB")
    before = rgb if rgb.size == (32, 32) else rgb.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels(image, kind=kind), np.asarray(before))
    monkeypatch.setattr(fitting, "_STRIP_PIXELS", 200)
    assert np.array_equal(pixels(image, kind=kind), np.asarray(before)), "strip by strip, too"


def test_an_image_is_cut_to_its_centre_or_set_on_the_background() -> None:
    wide = Image.new("RGB", (90, 30), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    cropped = pixels(wide, Fit(16, "crop"))
    assert cropped.shape == (16, 16, 3)
    assert (cropped == (0, 0, 255)).all(), "the sides are cut off"
    padded = pixels(wide, Fit(30, "pad", (0, 255, 0)))
    assert (padded[:10] == (0, 255, 0)).all()
    assert (padded[20:] == (0, 255, 0)).all()
    assert (padded[10:20, 13:17] == (0, 0, 255)).all()
    assert (padded[10:20, :5] == (255, 0, 0)).all()
    squeezed = pixels(wide, Fit(30, "squeeze"))
    assert (squeezed[:, 14:16] == (0, 0, 255)).all()


@pytest.mark.parametrize("how", ["squeeze", "crop", "pad"])
def test_strips_change_no_bit_of_any_fit(how: fitting.How, monkeypatch: pytest.MonkeyPatch) -> None:
    for size, mode in (((201, 130), "RGB"), ((40, 300), "P"), ((10, 700), "CMYK")):
        image = gradient(*size, mode)
        kind = "TIFF" if mode == "CMYK" else "PNG"
        whole = pixels(image, Fit(64, how), kind)
        monkeypatch.setattr(fitting, "_STRIP_PIXELS", 500)
        assert np.array_equal(pixels(image, Fit(64, how), kind), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", [Fit(), Fit(24, "crop"), Fit(24, "pad")])
def test_a_picture_is_turned_as_the_camera_was_held(orientation: int, fit: Fit) -> None:
    upright = Image.new("RGB", (60, 40), (200, 200, 0))
    upright.paste((0, 0, 200), (0, 0, 30, 20))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    lying = upright.transpose(Image.Transpose(back[orientation])) if orientation in back else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = pixels(saved(lying, "PNG", exif=exif), fit).astype(int)
    assert np.abs(found - pixels(upright, fit)).max() <= 2


def test_what_was_turned_upright_is_said(root: Path, own_images: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    gradient(50, 30).save(own_images / "train" / "0" / "turned.jpg", exif=exif)
    gradient(50, 30).save(own_images / "train" / "0" / "odd.jpg", exif=b"Exif\0\0damaged")
    notes = read(root, own_images).manifest.notes
    assert list(notes) == ["1 image was turned upright by its EXIF orientation"]


def test_what_is_transparent_shows_the_background() -> None:
    icon = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    icon.paste((0, 0, 0, 255), (8, 8, 24, 24))
    drawn = pixels(icon)
    assert (drawn[16, 16] == 0).all()
    assert (drawn[0, 0] == 255).all(), "its drawing is its transparency, and 0.1.0 saw a black square"
    assert (pixels(icon, Fit(32, "squeeze", (0, 0, 255)))[0, 0] == (0, 0, 255)).all()
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([9, 9, 9, 70, 70, 70])
    assert (pixels(saved(palette, transparency=1)) == 255).all()
    grey = Image.new("LA", (32, 32), (0, 128))
    assert (np.abs(pixels(grey).astype(int) - 127) <= 1).all()
    opaque = gradient(32, 32)
    assert np.array_equal(pixels(opaque.convert("RGBA")), np.asarray(opaque))


def test_a_png_with_a_large_colour_profile_is_read() -> None:
    profile = zlib.crc32(b"").to_bytes(4) * (2 << 18)
    assert np.array_equal(pixels(saved(gradient(32, 32), icc_profile=profile)), np.asarray(gradient(32, 32)))
    assert PngImagePlugin.MAX_TEXT_CHUNK > len(profile) > 2_000_000


def test_a_picture_of_too_many_pixels_or_too_large_a_profile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = bytes(20 << 20)
    with pytest.raises(M1Error, match="a colour profile or a text of more than 16,777,216 bytes: save it without"):
        pixels(saved(gradient(32, 32), icc_profile=profile))
    content = saved(Image.new("1", (400, 400)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(M1Error, match="more pixels than an image may have, 20,000: store it smaller"):
        pixels(content)


def test_an_image_that_takes_more_than_there_is_goes_alone() -> None:
    budget = Budget(100)
    alone, order = threading.Event(), []

    def large() -> None:
        with budget.take(1000):
            order.append("large")
            alone.set()

    with budget.take(60), budget.take(40):
        thread = threading.Thread(target=large)
        thread.start()
        assert not alone.wait(0.05)
        order.append("small")
    thread.join()
    with budget.take(100):
        order.append("next")
    assert order == ["small", "large", "next"]


READ_AND_SAY_THE_PEAK = """
import sys
from pathlib import Path
from m1train.data.prepare import prepare
def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak_kb()
prepare(Path(sys.argv[1]), sys.argv[2], lambda *_: None)
print(peak_kb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no system says the peak of a process but Linux")
def test_many_large_images_take_no_more_memory_than_the_bound(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "large"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        content = saved(Image.new("RGB", (8000, 5000), (200, 100, (name == "a") * 255)))
        for i in range(4):
            (source / name / f"{i}.png").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_SAY_THE_PEAK, str(root), str(source)],
        capture_output=True,
        check=True,
        text=True,
    )
    # Each takes 160 MB when it is decoded: one at a time is inside the bound of 256 MB, and two are not.
    assert 150_000 < int(done.stdout) < 300_000


def plain(source: Path) -> Path:
    """The classes without a split."""
    shutil.copytree(source / "train", source.with_name("plain"))
    return source.with_name("plain")


def tarred(folder: Path, prefix: str = "") -> Path:
    path = folder.with_name(folder.name + ".tar")
    with tarfile.open(path, "w") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, prefix + entry.name)
    return path


def packed(folder: Path, form: str) -> Path:
    """The folder as it is, or as an archive of it."""
    if form == "folder":
        return folder
    if form == "tar":
        return tarred(folder)
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_a_folder_of_classes_alone_is_all_training(root: Path, own_images: Path) -> None:
    folder = plain(own_images)
    dataset = read(root, folder)
    assert dataset.manifest.rows == {"train": 30}
    assert set(dataset.splits) == {"train"}
    for prefix in ("", "some/where/"):
        assert read(root, tarred(folder, prefix)).content_sha256 == dataset.content_sha256
    shutil.rmtree(own_images / "test")
    assert read(root, own_images).content_sha256 == dataset.content_sha256


@pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "Test"])
def test_a_validation_split_is_the_test_split_where_there_is_none(root: Path, own_images: Path, name: str) -> None:
    expected = read(root, own_images).content_sha256
    (own_images / "test").rename(own_images / "other")
    (own_images / "other").rename(own_images / name)
    (own_images / "train").rename(own_images / "Train")
    for source in (own_images, tarred(own_images)):
        dataset = read(root, source)
        assert dataset.content_sha256 == expected
        said = [] if name == "Test" else [f'the folder "{name}" is taken as the test split']
        assert list(dataset.manifest.notes) == said


def test_a_folder_in_a_folder_is_taken_as_a_tar_of_it_is(root: Path, own_images: Path) -> None:
    expected = read(root, own_images).content_sha256
    wrapper = own_images.with_name("wrapper")
    wrapper.mkdir()
    own_images.rename(wrapper / "flowers")
    assert read(root, wrapper).content_sha256 == expected
    assert read(root, tarred(wrapper)).content_sha256 == expected


def test_litter_of_servers_and_macs_is_passed_over_and_what_is_in_the_cloud_is_counted(
    root: Path, own_images: Path
) -> None:
    for folder in (own_images, own_images / "train" / "0"):
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "thumb.jpg").write_bytes(b"litter")
        (folder / "Icon\r").write_bytes(b"")
    for i in range(3):
        (own_images / "train" / "0" / f".photo{i}.jpg.icloud").write_bytes(b"bplist")
    for source in (own_images, tarred(own_images)):
        dataset = read(root, source)
        assert dataset.manifest.rows == {"train": 30, "test": 10}
        assert list(dataset.manifest.notes) == ["3 pictures are not downloaded from iCloud"]


def test_a_class_that_is_in_the_cloud_alone_says_what_to_do(root: Path, own_images: Path) -> None:
    (own_images / "train" / "rose").mkdir()
    (own_images / "train" / "rose" / ".1.jpg.icloud").write_bytes(b"bplist")
    assert refused(root, own_images).hint == "download its pictures from iCloud"


def test_images_that_occur_in_more_than_one_class_are_counted(root: Path, own_images: Path) -> None:
    for label in ("1", "2"):
        shutil.copy(own_images / "train" / "0" / "0.png", own_images / "train" / label / "again.png")
    shutil.copy(own_images / "train" / "3" / "0.png", own_images / "train" / "3" / "again.png")
    assert list(read(root, own_images).manifest.warnings) == ["1 image is in more than one class"]


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system allows one spelling")
def test_two_spellings_of_a_name_are_one_class(root: Path, own_images: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (own_images / "train" / "0").rename(own_images / "train" / one)
    (own_images / "train" / "1").rename(own_images / "train" / other)
    for label in ("0", "1"):
        shutil.rmtree(own_images / "test" / label)
    for source in (own_images, tarred(own_images)):
        manifest = read(root, source).manifest
        assert list(manifest.classes) == [*"23456789", one]
        assert list(manifest.notes) == ['two spellings of "café" (composed and decomposed) are one class']


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system refuses such a name")
def test_a_class_whose_name_is_not_utf_8_is_refused_at_once(root: Path, own_images: Path) -> None:
    os.rename(own_images / "train" / "0", os.fsencode(own_images / "train") + b"/caf\xe9")
    for source in (own_images, tarred(own_images)):
        error = refused(root, source)
        assert error.reason is Reason.BAD_DATA
        assert 'caf\\xe9" is a class whose name is not UTF-8' in error.message.replace("/0.png", "")


def test_a_heic_picture_in_a_folder_is_called_so(root: Path, own_images: Path) -> None:
    (own_images / "train" / "0" / "IMG_1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert '/IMG_1.heic" is a HEIC picture' in refused(root, own_images).message


def test_a_large_jpeg_may_be_decoded_reduced_but_not_for_what_0_1_0_read() -> None:
    content = saved(gradient(800, 600), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    assert np.array_equal(pixels(content), np.asarray(rgb.resize((32, 32), Image.Resampling.BILINEAR)))
    whole = np.asarray(rgb.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels(content, Fit(64)).astype(int) - whole).mean() < 4


def test_images_of_another_size_are_stored_in_their_size(root: Path, own_images: Path) -> None:
    dataset = read(root, own_images, needs=images_of(8, "pad", "black"))
    assert dataset.splits["test"]["image"].shape == (10, 8, 8, 3)
    assert dict(dataset.columns["image"].options) == {"background": "#000000", "fit": "pad", "size": "8"}


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_what_lies_among_the_pictures_and_is_none_is_passed_over_and_said(
    root: Path, tmp_path: Path, own_images: Path, form: str
) -> None:
    expected = read(tmp_path / "other", own_images).content_sha256
    for place in (own_images, own_images / "train", own_images / "train" / "0"):
        for name in ("labels.csv", "README", "IMG_1.MOV"):
            (place / name).write_bytes(b"beside the pictures")
    dataset = read(root, packed(own_images, form))
    assert dataset.content_sha256 == expected
    (note,) = dataset.manifest.notes
    assert note.startswith("9 files that are not pictures were skipped (the first is ")


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_train_val_and_test_are_three_splits(root: Path, own_images: Path, form: str) -> None:
    shutil.copytree(own_images / "test", own_images / "validation")
    (own_images / "train").rename(own_images / "training")
    dataset = read(root, packed(own_images, form))
    assert dataset.manifest.rows == {"train": 30, "test": 10, "val": 10}
    assert np.array_equal(dataset.splits["val"]["image"], dataset.splits["test"]["image"])
    assert sorted(dataset.manifest.notes) == [
        'the folder "training" is taken as the training split',
        'the folder "validation" is taken as the validation split',
    ]
    (own_images / "training").rename(own_images / "train")
    assert read(root, own_images).content_sha256 == dataset.content_sha256


def test_two_folders_for_one_split_are_refused(root: Path, own_images: Path) -> None:
    shutil.copytree(own_images / "test", own_images / "Testing")
    for form in ("folder", "tar", "zip"):
        message = refused(root, packed(own_images, form)).message
        assert 'has the folders "' in message
        assert '", which are one split' in message


def test_a_class_may_be_called_as_a_split_is(root: Path, own_images: Path) -> None:
    folder = plain(own_images)
    vehicles = shutil.copytree(folder, folder.with_name("vehicles"))
    for name in "3456789":
        shutil.rmtree(folder / name)
    for i, split in enumerate(("train", "test", "val")):
        (folder / str(i)).rename(folder / split)
    message = refused(root, folder).message
    (vehicles / "0").rename(vehicles / "train")
    assert "train" in read(root, vehicles).manifest.classes, "pictures of trains"
    assert 'has its pictures directly in "test" and "train" and "val", with no folder for each class' in message


def test_a_folder_may_be_wrapped_as_often_as_a_tar(root: Path, own_images: Path) -> None:
    expected = read(root, own_images).content_sha256
    wrapper = own_images.with_name("wrapper")
    (wrapper / "download").mkdir(parents=True)
    own_images.rename(wrapper / "download" / "flowers")
    (wrapper / "README.md").write_text("hello")
    for form in ("folder", "tar", "zip"):
        assert read(root, packed(wrapper, form)).content_sha256 == expected


def test_a_folder_without_a_picture_anywhere_says_so(root: Path, tmp_path: Path) -> None:
    for name in ("a/b", "c/d"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    assert '/folders/a/b" is a folder inside a class' in refused(root, tmp_path / "folders").message
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(loop)
    assert refused(root, loop).reason is Reason.BAD_DATA


def test_a_link_in_a_folder_is_followed_and_one_to_nothing_is_named(root: Path, own_images: Path) -> None:
    link = own_images / "train" / "0" / "link.png"
    link.symlink_to(own_images / "nowhere")
    assert '/0/link.png" is a link to nothing' in refused(root, own_images).message
    link.unlink()
    link.symlink_to(own_images / "train" / "0" / "0.png")
    assert read(root, own_images).manifest.rows["train"] == 31
