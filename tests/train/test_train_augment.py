import numpy as np
import pytest
import torch
from m1train.randomness import Draw
from m1train.task.classifier.augment import (
    AugmentationSpread,
    alternately_flipped,
    as_floats,
    cropped,
    cut_out,
    drawn_centres,
    drawn_shifts,
    flipped_and_rotated,
    jittered,
    mirrored,
    normalised,
)
from torchvision.transforms import functional as reference

N = 64


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Smooth colourful images [N, 32, 32, 3] uint8, made of a few waves."""
    t = torch.linspace(0, 6, 32)
    waves = [torch.sin(t * (i % 5 + 1))[:, None] + torch.cos(t * (i % 7 + 1) + i)[None, :] for i in range(3 * N)]
    return ((torch.stack(waves).reshape(N, 3, 32, 32) + 2) * 63).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def planes(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


def test_flip_and_rotation_are_torchvisions(pictures: torch.Tensor) -> None:
    flip = np.arange(N) % 2 == 0
    degrees = np.linspace(-180, 180, N).astype(np.float32)
    result = flipped_and_rotated(pictures, flip, degrees)
    for i in range(N):
        image = planes(pictures)[i]
        expected = reference.rotate(reference.hflip(image) if flip[i] else image, float(degrees[i]))
        # A pixel that comes from the border between two others may come from either.
        assert (planes(result)[i] != expected).any(dim=0).float().mean() < 0.01, degrees[i]


def test_no_flip_and_no_rotation_change_nothing(pictures: torch.Tensor) -> None:
    assert torch.equal(flipped_and_rotated(pictures, np.zeros(N, bool), np.zeros(N, np.float32)), pictures)


def test_what_turns_in_from_outside_is_black(pictures: torch.Tensor) -> None:
    white = torch.full_like(pictures, 255)
    turned = flipped_and_rotated(white, np.zeros(N, bool), np.full(N, 45, np.float32))
    assert turned[:, 0, 0].eq(0).all()
    assert turned[:, 16, 16].eq(255).all()


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_colour_jitter_is_torchvisions_in_every_order(pictures: torch.Tensor, order: tuple[int, int, int]) -> None:
    factors = np.random.default_rng(0).uniform(0.2, 1.8, (N, 3)).astype(np.float32)
    result = jittered(as_floats(pictures), factors, np.tile(order, (N, 1)))
    steps = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    for i in range(N):
        expected = planes(pictures)[i].float() / 255
        for which in order:
            expected = steps[which](expected, float(factors[i, which]))
        assert torch.allclose(result[i], expected, atol=1e-5)


def test_each_sample_is_jittered_in_its_own_order(pictures: torch.Tensor) -> None:
    factors = np.tile(np.array([1.7, 0.3, 1.6], np.float32), (2, 1))
    both = jittered(as_floats(pictures[:2]), factors, np.array([(0, 1, 2), (2, 1, 0)]))
    for i, order in enumerate([(0, 1, 2), (2, 1, 0)]):
        alone = jittered(as_floats(pictures[i : i + 1]), factors[:1], np.array([order]))
        assert torch.equal(both[i : i + 1], alone)


def test_a_mirror_image_is_torchvisions(pictures: torch.Tensor) -> None:
    flip = np.arange(N) % 3 == 0
    result = planes(mirrored(pictures, flip))
    for i in range(N):
        assert torch.equal(result[i], reference.hflip(planes(pictures)[i]) if flip[i] else planes(pictures)[i])


def test_a_crop_of_a_reflected_border_is_torchvisions(pictures: torch.Tensor) -> None:
    begin = np.stack(np.divmod(np.arange(N) % 81, 9), axis=1)
    result = planes(cropped(pictures, 4, begin))
    for i in range(N):
        padded = reference.pad(planes(pictures)[i], [4], padding_mode="reflect")
        assert torch.equal(result[i], reference.crop(padded, int(begin[i, 0]), int(begin[i, 1]), 32, 32))


def test_cutout_is_torchvisions_erasing_as_far_as_it_lies_inside(pictures: torch.Tensor) -> None:
    centre = np.stack((np.arange(N) % 32, np.arange(N) * 7 % 32), axis=1)
    images = as_floats(pictures)
    result = cut_out(images, 8, centre)
    for i in range(N):
        top, left = (max(0, int(centre[i, axis]) - 4) for axis in (0, 1))
        bottom, right = (min(32, int(centre[i, axis]) + 4) for axis in (0, 1))
        expected = reference.erase(images[i], top, left, bottom - top, right - left, torch.zeros(1))
        assert torch.equal(result[i], expected)


def test_an_alternating_flip_shows_an_image_and_its_mirror_image_in_turn() -> None:
    samples = np.arange(10_000, dtype=np.uint64)
    epochs = [alternately_flipped(Draw(3, epoch, samples)) for epoch in range(3)]
    assert abs(epochs[0].mean() - 0.5) < 0.02
    assert np.array_equal(epochs[1], ~epochs[0])
    assert np.array_equal(epochs[2], epochs[0])
    assert np.array_equal(alternately_flipped(Draw(3, 0, samples[17:18])), epochs[0][17:18])


def test_shifts_and_centres_fill_their_bounds_evenly() -> None:
    draw = Draw(3, 1, np.arange(50_000, dtype=np.uint64))
    for drawn, n in ((drawn_shifts(draw, 2), 5), (drawn_centres(draw, 32, 32), 32)):
        for axis in (0, 1):
            counts = np.bincount(drawn[:, axis], minlength=n)
            assert len(counts) == n
            assert np.allclose(counts / 50_000, 1 / n, atol=0.01)


def test_normalisation_is_torchvisions(pictures: torch.Tensor) -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = reference.normalize(planes(pictures).float() / 255, list(mean), list(std))
    assert torch.allclose(normalised(as_floats(pictures), mean, std), expected, atol=1e-5)


def test_drawn_parameters_stay_in_their_bounds_and_fill_them() -> None:
    spread = AugmentationSpread(0.25, 10, 0.1, 0.2, 1.0)
    drawn = spread.draw(Draw(1, 2, np.arange(20_000, dtype=np.uint64)))
    assert abs(drawn.flip.mean() - 0.25) < 0.02
    assert drawn.degrees.min() == pytest.approx(-10, abs=0.01)
    assert drawn.degrees.max() == pytest.approx(10, abs=0.01)
    assert np.allclose(drawn.factors.min(axis=0), (0.9, 0.8, 0.0), atol=0.001)
    assert np.allclose(drawn.factors.max(axis=0), (1.1, 1.2, 2.0), atol=0.001)
    orders, counts = np.unique(drawn.order, axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 0.9 * 20_000 / 6


def test_a_samples_augmentation_does_not_depend_on_its_batch() -> None:
    spread = AugmentationSpread(0.5, 10, 0.1, 0.1, 0.1)
    whole = spread.draw(Draw(1, 2, np.arange(10, dtype=np.uint64)))
    part = spread.draw(Draw(1, 2, np.arange(4, 7, dtype=np.uint64)))
    assert np.array_equal(whole.factors[4:7], part.factors)
    assert np.array_equal(whole.degrees[4:7], part.degrees)
