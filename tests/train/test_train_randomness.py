from collections.abc import Callable

import numpy as np
import pytest
import torch
from m1train.randomness import Draw, Stream, epoch_order, even_split, initial_weights, philox, random_split

# Random123, tests/kat_vectors: philox4x32, 10 rounds: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def draw(*samples: int, seed: int = 7, epoch: int = 3) -> Draw:
    return Draw(seed, epoch, np.array(samples, np.uint64))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, result: str) -> None:
    c0, c1, c2, c3 = (np.array([word], np.uint64) for word in words(counter))
    k0, k1 = words(key)
    assert [int(word[0]) for word in philox((c0, c1, c2, c3), (k0, k1))] == words(result)


def test_philox_gives_many_counters_what_it_gives_each_of_them() -> None:
    c0, c1, c2, c3 = (np.array(column, np.uint64) for column in zip(*(words(known[0]) for known in KNOWN), strict=True))
    many = np.stack(philox((c0, c1, c2, c3), (1, 2)))
    for i in range(len(KNOWN)):
        one = philox((c0[i : i + 1], c1[i : i + 1], c2[i : i + 1], c3[i : i + 1]), (1, 2))
        assert np.array_equal(many[:, i : i + 1], np.stack(one))


def test_an_order_is_a_permutation_and_differs_by_epoch_and_by_seed() -> None:
    orders = [epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(1000))
    for i, order in enumerate(orders):
        assert np.array_equal(order, epoch_order(i // 2, i % 2, 1000))
        assert all((order != other).mean() > 0.9 for other in orders[:i])


def test_a_seed_above_32_bits_is_another_seed() -> None:
    assert not np.array_equal(epoch_order(1, 0, 100), epoch_order(1 + 2**32, 0, 100))


def test_uniforms_are_uniform_and_never_one() -> None:
    u = draw(*range(10_000)).uniforms(Stream.AUGMENTATION, 7)
    assert u.shape == (10_000, 7)
    assert u.min() >= 0
    assert u.max() < 1
    # The mean of n uniforms deviates by 1/sqrt(12 n): five times that is never seen by chance.
    assert np.abs(u.mean(axis=0) - 0.5).max() < 5 / np.sqrt(12 * 10_000)


def test_dropout_does_not_depend_on_how_a_batch_is_split() -> None:
    samples = [5, 1_000_000, 0, 17, 3, 2]
    like = torch.empty(1)
    whole = draw(*samples).dropout(2, 13, 0.3, like)
    parts = [draw(*part).dropout(2, 13, 0.3, like) for part in (samples[:1], samples[1:4], samples[4:])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), draw(*reversed(samples)).dropout(2, 13, 0.3, like))


def test_dropout_differs_by_layer_epoch_and_seed_and_keeps_the_mean() -> None:
    like = torch.empty(1)
    masks = [
        draw(*range(2000), seed=seed, epoch=epoch).dropout(layer, 64, 0.3, like)
        for seed in (1, 2)
        for epoch in (1, 2)
        for layer in (0, 1)
    ]
    for i, mask in enumerate(masks):
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]  # type: ignore[no-untyped-call]
        assert abs(float(mask.mean()) - 1) < 0.01
        assert all(0.5 < float((mask == other).float().mean()) < 0.65 for other in masks[:i])


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    drawn = []
    for seed in (3, 3, 4):
        with initial_weights(seed):
            drawn.append(torch.nn.Linear(3, 3).weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_even_split_takes_equal_shares_of_unequal_classes() -> None:
    labels = np.repeat(np.arange(3), (100, 50, 10))
    training, validation = even_split(5, labels, 16)
    assert np.array_equal(np.sort(np.concatenate((training, validation))), np.arange(160))
    assert np.abs(np.bincount(labels[validation]) - (10, 5, 1)).max() <= 1
    assert len(validation) == 16
    assert not np.array_equal(validation, even_split(6, labels, 16)[1])


def test_the_test_split_is_another_one_than_the_validation_and_both_leave_the_rest_in_its_order() -> None:
    labels = np.repeat(np.arange(3), (100, 50, 10))
    splits: tuple[Callable[[Stream], tuple[np.ndarray, np.ndarray]], ...] = (
        lambda stream: even_split(5, labels, 16, stream),
        lambda stream: random_split(5, len(labels), 16, stream),
    )
    for split in splits:
        rest, held_out = split(Stream.SPLIT)
        assert np.array_equal(np.sort(np.concatenate((rest, held_out))), np.arange(160))
        assert np.all(np.diff(rest) > 0)
        assert len(held_out) == 16
        assert not np.array_equal(held_out, split(Stream.TEST)[1])
