"""Which settings decide bits: a fingerprint holds those, and a resume names what of them is not as it was."""

from dataclasses import asdict, dataclass, replace

from m1.checkpoint_state import Origin, State
from m1train.checkpoints.resume import changes, content_fingerprint, effective
from m1train.task.settings import Declaration, TaskConfig, neutral, setting


@dataclass(frozen=True, kw_only=True)
class Before(TaskConfig):
    lr: float = setting(0.1, "Learning rate.", minimum=0, maximum=10)


@dataclass(frozen=True, kw_only=True)
class Now(Before):
    """A version later."""

    smoothing: float = setting(0.0, "How much is smoothed.", minimum=0, maximum=1, neutral=True)
    warmup: int = setting(5, "Steps of warm-up.", minimum=0, maximum=100)


def fingerprint(config: TaskConfig) -> dict[str, str | int]:
    declared = Declaration("mine", "", "", type(config), "")
    return {"device": "cpu", **content_fingerprint(declared, config, "0" * 64)}


def saved(config: TaskConfig) -> State:
    job = Origin("j1", "mine", "", asdict(config), {})
    return State(5, 1, 1, {}, None, fingerprint(config), 0.0, job=job)


def changed(before: TaskConfig, now: TaskConfig) -> list[str]:
    return changes(saved(before), fingerprint(now), now)


@dataclass(frozen=True, kw_only=True)
class Neutral(Before):
    """A version later, in which nothing changes by itself."""

    smoothing: float = setting(0.0, "How much is smoothed.", minimum=0, maximum=1, neutral=True)


def test_a_neutral_setting_at_its_default_is_in_no_fingerprint() -> None:
    assert neutral(Neutral) == neutral(Before) | {"smoothing": 0.0}
    assert "smoothing" not in effective(Neutral())
    assert effective(Neutral(smoothing=0.1))["smoothing"] == 0.1
    assert fingerprint(Neutral()) == fingerprint(Before())
    assert fingerprint(Neutral(smoothing=0.1)) != fingerprint(Before())


def test_a_checkpoint_that_does_not_know_a_neutral_setting_is_gone_on_from_exactly() -> None:
    assert changed(Before(), Neutral()) == []
    assert changed(Neutral(), Before()) == []


def test_a_neutral_setting_that_is_set_is_named_with_what_it_was() -> None:
    assert changed(Before(), Neutral(smoothing=0.1)) == ["smoothing was 0.0, is 0.1"]
    assert changed(Neutral(smoothing=0.2), Neutral()) == ["smoothing was 0.2, is 0.0"]


def test_a_new_setting_that_changes_what_is_trained_is_named() -> None:
    assert changed(Before(), Now()) == ["warmup was unknown, is 5"]


def test_all_that_differs_is_named_and_nothing_else() -> None:
    assert changed(Before(lr=0.2, seed=3), Now(smoothing=0.5)) == [
        "lr was 0.2, is 0.1",
        "seed was 3, is 0",
        "smoothing was 0.0, is 0.5",
        "warmup was unknown, is 5",
    ]


def test_how_often_something_is_recorded_judged_or_stored_decides_no_bits() -> None:
    often = replace(
        Before(),
        metrics_every=7,
        validate_every_steps=3,
        checkpoint_every_epochs=0,
        checkpoint_every_steps=2,
        checkpoint_every_s=1,
        keep_checkpoints=9,
    )
    assert fingerprint(often) == fingerprint(Before())
    assert changed(Before(), often) == []


def test_what_is_set_apart_for_the_test_decides_bits_once_it_is_asked_for() -> None:
    assert "test_fraction" not in effective(Before())
    assert changed(Before(), replace(Before(), test_fraction=0.2)) == ["test_fraction was 0.1, is 0.2"]
