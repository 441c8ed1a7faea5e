"""The `chars` recipe: its vocabulary, its windows, what it learns, what it writes, and what it refuses."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from m1.columns import Column
from m1.errors import M1Error, Reason
from m1.settings import resolve
from m1train.engine.examples import examples, needs_of
from m1train.engine.rehearsal import rehearse
from m1train.randomness import Draw, epoch_order, initial_weights, set_generators
from m1train.recipes.chars import DECLARATION, CharsConfig
from m1train.recipes.chars import model as gpt
from m1train.recipes.chars.chars import Chars
from m1train.recipes.chars.model import GPT, Shape
from m1train.recipes.chars.samples import MOST_CHARACTERS, Vocabulary, Windows, hold_out
from m1train.recipes.chars.sampling import Manner, choose, written
from m1train.task.recipe import Batch, DataInfo, Moment
from m1train.task.recipe import Text as TextResult
from m1train.task.settings import resolved
from numpy.typing import NDArray
from torch import nn

VERSE = "The quick brown fox jumps over the lazy dog.\n"
COLUMN = Column("text", "text", "uint8")
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "batch_size": 8, "warmup": 5, "lr": 0.003}


def chars(**settings: object) -> Chars:
    return Chars(resolved(CharsConfig, SMALL | settings))


def columns(text: str | bytes) -> dict[str, NDArray[Any]]:
    content = text.encode() if isinstance(text, str) else text
    return {"text": np.frombuffer(content, np.uint8), "text_offsets": np.array([0, len(content)])}


def facts(text: str | bytes, **settings: object) -> DataInfo:
    return DataInfo({"text": COLUMN}, chars(**settings).facts(columns(text)))


def windows(text: str, block_size: int = 16) -> Windows:
    made = chars(block_size=block_size).samples(columns(text), facts(text))
    assert isinstance(made, Windows)
    return made


def draw_of(indices: NDArray[np.int64], seed: int = 0, epoch: int = 0) -> Draw:
    return Draw(seed, epoch, indices.astype(np.uint64))


def network(task: Chars, info: DataInfo) -> GPT:
    with initial_weights(task.config.seed):
        model = task.network(info)
    assert isinstance(model, GPT)
    return model


def train(task: Chars, text: str, steps: int) -> tuple[GPT, list[float], DataInfo]:
    """As the engine does it, without the engine."""
    info = DataInfo({"text": COLUMN}, task.facts(columns(text)))
    samples = task.samples(columns(text), info)
    model = network(task, info)
    optimizer = task.optimizer(model)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    training = np.arange(len(samples))
    size = task.config.batch_size
    per_epoch = max(1, len(training) // size)
    losses = []
    for step in range(steps):
        epoch, i = divmod(step, per_epoch)
        chosen = training[epoch_order(0, epoch, len(training))][i * size : (i + 1) * size]
        draw = draw_of(chosen, epoch=epoch)
        batch = Batch({name: torch.as_tensor(values) for name, values in samples.take(chosen, draw).items()})
        set_generators(0, step)
        loss, _ = task.training_loss(model, batch, draw)
        loss.backward()  # type: ignore[no-untyped-call]
        task.set_rates(optimizer, Moment(step, per_epoch, -(-steps // per_epoch)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, losses, info


def evaluated(task: Chars, model: nn.Module, text: str, info: DataInfo) -> Any:
    samples = task.samples(columns(text), info)
    evaluation = task.evaluation(info, "val")
    with torch.inference_mode():
        for i in range(0, len(samples), 8):
            taken = samples.take(np.arange(i, min(i + 8, len(samples))), None)
            evaluation.add(model.eval(), Batch({name: torch.as_tensor(values) for name, values in taken.items()}))
    return evaluation


# The windows


@pytest.mark.parametrize("block_size", [1, 3, 16])
@pytest.mark.parametrize("n_validation", [1, 5])
def test_no_training_window_reaches_into_what_is_held_out(block_size: int, n_validation: int) -> None:
    text = np.arange(50 * block_size + 7).astype(np.uint16)
    samples = Windows(text, block_size)
    rest, test = hold_out(np.arange(len(samples)), 4)
    training, validation = hold_out(rest, n_validation)
    learnt = {
        int(token)
        for epoch in range(20)
        for row in samples.take(training, draw_of(training, epoch=epoch))["tokens"]
        for token in row
    }
    judged, tested = (
        {int(token) for row in samples.take(held_out, None)["tokens"] for token in row}
        for held_out in (validation, test)
    )

    assert (len(validation), len(test)) == (n_validation, 4)
    assert len(learnt) > len(judged)
    assert max(learnt) < min(judged)
    assert max(judged) < min(tested)


def test_an_epoch_visits_every_window_and_another_one_begins_them_elsewhere() -> None:
    samples = windows(VERSE * 40)
    every = np.arange(len(samples))
    first, again, second = (samples.take(every, draw_of(every, epoch=epoch))["tokens"] for epoch in (0, 0, 1))

    assert (first == again).all()
    assert (first != second).any()
    assert (first != samples.take(every, draw_of(every, seed=1))["tokens"]).any()


def test_without_a_draw_the_windows_are_the_text_in_order() -> None:
    text = VERSE * 3
    samples, vocabulary = windows(text), Vocabulary.from_json(facts(text).facts)
    rows = samples.take(np.arange(len(samples)), None)["tokens"]
    read = "".join(vocabulary.characters[token] for row in rows for token in row[:-1])

    assert text.startswith(read)
    assert len(read) > len(text) - 17
    assert (rows[:-1, -1] == rows[1:, 0]).all()


def test_a_batch_that_is_split_in_two_draws_the_same() -> None:
    samples = windows(VERSE * 40)
    chosen = np.array([5, 0, 17, 3, 9])
    whole = samples.take(chosen, draw_of(chosen))["tokens"]
    parts = [samples.take(part, draw_of(part))["tokens"] for part in (chosen[:2], chosen[2:])]

    assert (whole == np.concatenate(parts)).all()


def test_a_step_counts_its_tokens() -> None:
    assert chars().size(Batch({"tokens": torch.zeros(8, 17)})) == 128


# The vocabulary


def test_the_vocabulary_is_of_what_trains_alone() -> None:
    text = VERSE * 40 + "Ω" * 20

    assert set(facts(text, val_samples=10).facts["characters"]) == set(VERSE)
    assert set(facts(text, val_samples=0).facts["characters"]) == {*VERSE, "Ω"}


def test_an_unknown_character_is_one_symbol_in_an_evaluation() -> None:
    info = facts(VERSE * 20)
    samples = chars().samples(columns("The quick ß fox and a Ω dog"), info)
    vocabulary = Vocabulary.from_json(info.facts)
    tokens = samples.take(np.array([0]), None)["tokens"]

    assert int(tokens[0, 10]) == vocabulary.unknown == len(vocabulary) - 1


def test_beyond_the_most_frequent_characters_all_are_one_symbol() -> None:
    rare = "".join(chr(0x4E00 + i) for i in range(600))
    vocabulary = Vocabulary.from_json(facts(rare + VERSE * 50).facts)

    assert len(vocabulary) == MOST_CHARACTERS + 1
    assert set(VERSE) <= set(vocabulary.characters)
    assert vocabulary.encoded(np.frombuffer("\u4e00\u5057".encode(), np.uint8)).tolist()[1] == vocabulary.unknown


def test_a_text_is_read_the_same_in_whatever_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "aß語😀" * 50
    whole = windows(text).symbols
    monkeypatch.setattr("m1train.recipes.chars.samples._PART_BYTES", 7)

    assert (windows(text).symbols == whole).all()
    assert len(whole) == 200


def test_what_is_not_utf8_is_one_character_more() -> None:
    assert facts(b"ab\xff" * 50).facts["characters"] == "ab\N{REPLACEMENT CHARACTER}"


def test_as_bytes_a_text_is_taken_as_it_is() -> None:
    text = columns("äb" * 50)
    info = facts("äb" * 50, vocabulary="bytes")
    samples = chars(vocabulary="bytes").samples(text, info)

    assert isinstance(samples, Windows)
    assert samples.symbols is text["text"]
    assert len(Vocabulary.from_json(info.facts)) == 256


# What is refused


def refusal(text: str | bytes, **settings: object) -> M1Error:
    task = chars(**settings)
    with pytest.raises(M1Error) as caught:
        task.samples(columns(text), DataInfo({}, task.facts(columns(text))))
    return caught.value


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_an_empty_text_is_refused(vocabulary: str) -> None:
    error = refusal("", vocabulary=vocabulary)
    assert (error.reason, str(error)) == (Reason.BAD_DATA, "the text is empty: give one of some thousand characters")


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_a_text_of_one_character_is_refused(vocabulary: str) -> None:
    error = refusal("a" * 1000, vocabulary=vocabulary)
    assert "the text has no character but 'a', so there is nothing to learn" in str(error)


def test_a_text_that_is_shorter_than_a_window_is_refused_with_what_would_do() -> None:
    error = refusal("abcdefghij")
    assert error.field == "settings.block_size"
    assert "what tests of it has 10 characters, and block_size=16 takes 17 at least" in str(error)
    assert "set block_size to 9 or less" in str(error)
    assert len(windows("abcdefghij", block_size=9)) == 1


def test_heads_that_cannot_share_the_width_are_refused_with_one_that_does() -> None:
    with pytest.raises(
        M1Error, match=r"n_embd=100 is not a multiple of n_head=3, so the heads cannot share it: take n_embd=102"
    ) as caught:
        chars(n_embd=100, n_head=3)
    assert caught.value.field == "settings.n_embd"


# What is learnt


def test_it_overfits_a_short_text() -> None:
    text = VERSE * 8
    task = chars(val_samples=0)
    model, losses, info = train(task, text, 150)
    metrics = evaluated(task, model, text, info).metrics()

    assert losses[0] == pytest.approx(math.log(len(set(VERSE)) + 1), rel=0.05)
    assert metrics["bits_per_char"] < 1
    assert metrics["bits_per_char"] == pytest.approx(metrics["loss"] / math.log(2))


def test_the_model_is_the_same_by_the_seed_and_no_position_sees_what_comes_after_it() -> None:
    info = facts(VERSE * 20)
    model, again, other = network(chars(), info), network(chars(), info), network(chars(seed=1), info)
    tokens = torch.arange(16)[None] % 20
    changed = tokens.clone()
    changed[0, 10] = 21

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.symbols.weight, other.symbols.weight)
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :10], after[:, :10], atol=1e-6)
    assert not torch.allclose(before[:, 10:], after[:, 10:], atol=1e-6)


def test_initial_weights_have_gpt2s_deviations() -> None:
    model = GPT(Shape(256, 64, 8, 4, 128))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            wanted = 0.02 / 4 if name.endswith("projection.weight") else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("explicit", [0, 128])
def test_every_way_to_compute_it_gives_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, faster: bool, explicit: int
) -> None:
    info = facts(VERSE * 20)
    tokens = torch.arange(32).reshape(2, 16) % 20

    def gradients() -> list[torch.Tensor]:
        model = network(chars(), info)
        model(tokens).logsumexp(-1).sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    expected = gradients()
    monkeypatch.setattr(gpt, "_convolves_faster", lambda: faster)
    monkeypatch.setattr(gpt, "_LONGEST_EXPLICIT", {torch.float32: explicit})

    for found, wanted in zip(gradients(), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_in_bfloat16_it_learns_the_same() -> None:
    task, info = chars(), facts(VERSE * 20)
    model, chosen = network(task, info), np.arange(8)
    tokens = task.samples(columns(VERSE * 20), info).take(chosen, None)["tokens"]
    batch = Batch({"tokens": torch.as_tensor(tokens)})
    expected, _ = task.training_loss(model, batch, draw_of(chosen))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = task.training_loss(model, batch, draw_of(chosen))

    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)


def test_bits_per_character_of_bytes_are_of_characters() -> None:
    text = "äöü" * 40  # two bytes each
    task = chars(vocabulary="bytes")
    info = facts(text, vocabulary="bytes")
    metrics = evaluated(task, network(task, info), text, info).metrics()
    tokens = torch.as_tensor(task.samples(columns(text), info).take(np.arange(8), None)["tokens"])
    loss, measured = task.training_loss(network(task, info), Batch({"tokens": tokens}), draw_of(np.arange(8)))

    assert metrics["bits_per_char"] == pytest.approx(2 * metrics["loss"] / math.log(2))
    assert float(measured["bits_per_char"]) == pytest.approx(2 * loss.item() / math.log(2))


def test_dropout_follows_from_the_draw_and_is_not_in_an_evaluation() -> None:
    task, info = chars(dropout=0.5), facts(VERSE * 20)
    model, chosen = network(task, info), np.arange(8)
    samples = task.samples(columns(VERSE * 20), info)
    batch = Batch({"tokens": torch.as_tensor(samples.take(chosen, None)["tokens"])})

    def loss(epoch: int) -> float:
        return task.training_loss(model, batch, draw_of(chosen, epoch=epoch))[0].item()

    assert loss(0) == loss(0) != loss(1)
    evaluations = [evaluated(task, model, VERSE * 20, info).metrics() for _ in range(2)]
    assert evaluations[0] == evaluations[1]


def test_the_rate_rises_over_the_warm_up_and_falls_to_the_lowest() -> None:
    task = chars(lr=0.01, min_lr=0.001, warmup=10)
    rates = [task.rate(Moment(step, 50, 2)) for step in range(100)]

    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 < rates[-1] < 0.102
    assert chars(lr=1e-5, min_lr=1e-4).rate(Moment(99, 50, 2)) == 1


def test_only_matrices_decay() -> None:
    task, info = chars(weight_decay=0.3, clip=0), facts(VERSE * 20)
    model = network(task, info)
    decaying, others = task.optimizer(model).param_groups

    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0)
    assert all(parameter.dim() >= 2 for parameter in decaying["params"])
    assert sum(len(group["params"]) for group in (decaying, others)) == len(list(model.parameters()))
    assert task.clip_norm == math.inf


# What is written


def write(task: Chars, model: nn.Module, info: DataInfo, **options: int | float | str) -> list[str]:
    chosen = resolve(DECLARATION.uses[0].options, options)
    return [str(row["text"]) for row in task.use("sample", model.eval(), info, [], chosen)]


def test_what_it_learnt_by_heart_it_writes() -> None:
    task = chars(val_samples=0)
    model, _, info = train(task, VERSE * 8, 150)
    pieces = write(task, model, info, prompt="The quick ", length=34, temperature=0)

    assert len(pieces) > 2
    assert "".join(pieces).startswith("The quick brown fox jumps over")


def test_the_same_seed_writes_the_same_and_touches_no_generator() -> None:
    task, info = chars(), facts(VERSE * 20)
    model = network(task, info)
    set_generators(0, 7)
    state = torch.random.get_rng_state()
    first, again, other = ("".join(write(task, model, info, length=50, seed=seed)) for seed in (1, 1, 2))

    assert first == again != other
    assert len(first) == 50
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_validation_brings_a_sample_that_is_the_same_for_the_same_weights() -> None:
    task, info = chars(), facts(VERSE * 20)
    model = network(task, info)
    evaluation = evaluated(task, model, VERSE * 20, info)
    (sample,) = evaluation.results(model)

    assert isinstance(sample, TextResult)
    assert sample.name == "sample"
    assert len(sample.text) == 400
    assert evaluation.results(model) == [sample]


def test_a_sample_of_bytes_is_text() -> None:
    verse = "Zwölf Boxkämpfer jagen Viktor quer über den Deich.\n"
    task = chars(vocabulary="bytes", val_samples=0)
    model, _, info = train(task, verse * 8, 200)
    pieces = write(task, model, info, prompt="Zwö", length=32, temperature=0)

    assert "".join(pieces).startswith("Zwölf Boxkämpfer jagen")


def test_a_prompt_with_a_character_that_it_does_not_know_is_refused() -> None:
    task, info = chars(), facts(VERSE * 20)
    model = network(task, info)
    with pytest.raises(M1Error, match=r"the prompt has 'é', which the model has never seen: it knows") as caught:
        write(task, model, info, prompt="café")
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_ARGUMENT, "prompt")
    assert write(chars(vocabulary="bytes"), *_bytes(), prompt="café", length=1)


def _bytes() -> tuple[nn.Module, DataInfo]:
    info = facts(VERSE * 20, vocabulary="bytes")
    return network(chars(vocabulary="bytes"), info), info


@pytest.mark.parametrize(
    ("manner", "chosen"),
    [
        (Manner(temperature=0), [1, 1, 1]),
        (Manner(temperature=1), [0, 1, 2]),
        (Manner(temperature=1, top_k=1), [1, 1, 1]),
        (Manner(temperature=1, top_k=2), [1, 1, 2]),
    ],
)
def test_a_symbol_is_chosen_by_temperature_and_top_k(manner: Manner, chosen: Sequence[int]) -> None:
    logits = np.log([0.2, 0.5, 0.3])
    assert [choose(logits, uniform, manner) for uniform in (0.1, 0.4, 0.9)] == chosen


def test_a_symbol_for_what_is_unknown_is_never_written() -> None:
    info = facts(VERSE * 20)
    model, vocabulary = network(chars(), info), Vocabulary.from_json(info.facts)
    with torch.no_grad():
        model.symbols.weight[vocabulary.unknown] += 100 * torch.sign(model.symbols.weight[vocabulary.unknown])

    assert set("".join(written(model, vocabulary, "", 50, Manner()))) <= set(VERSE)


# The recipe


@pytest.mark.parametrize("settings", [{}, {"vocabulary": "bytes"}, {"dropout": 0.3}])
def test_it_passes_the_rehearsal_of_a_recipe_of_ones_own(settings: dict[str, object]) -> None:
    config = resolved(CharsConfig, SMALL | settings)
    rehearse(Chars, config, lambda task: examples(task, needs_of(task), 64), lambda words: nullcontext())


def test_it_is_declared_without_torch_as_the_class_has_it() -> None:
    assert Chars.needs == DECLARATION.needs
    assert Chars.metrics == DECLARATION.metrics
    assert Chars.uses == DECLARATION.uses
    assert (Chars.default_data, Chars.sample_unit) == (DECLARATION.default_data, DECLARATION.sample_unit)
    assert DECLARATION.to_json()["uses"][0]["name"] == "sample"
