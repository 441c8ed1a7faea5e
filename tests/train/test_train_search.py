"""The search for the fastest profile, on a machine that is a table of factors and a clock that is a sum."""

import itertools
import random
from collections.abc import Mapping

import pytest
from m1.jobdir import Profile
from m1.journal import Finding
from m1d.catalogue.profiles import Tuned
from m1train.tuning.choices import FIELDS, Machine, choices
from m1train.tuning.search import FINAL_PAIRS, LEAST_PAIRS, MOST_PAIRS, CannotTryError, Search

MACHINE = Machine(devices=["cpu"], bfloat16=True, threads=[1, 2, 4], nnpack=True)
START = Profile(threads=2)


class Bench:
    """Trials that take what a table says, and a little more or less."""

    def __init__(
        self,
        factors: Mapping[str, float],
        noise: float = 0.01,
        impossible: str = "",
        *,
        making_s: float = 0.0,
        seed: int = 7,
    ) -> None:
        self.factors = factors
        self.noise = noise
        self.impossible = impossible
        self.trials: list[Profile] = []
        self.spent = 0.0
        self.made: set[Profile] = set()
        self._making_s = making_s
        self._random = random.Random(seed)

    def trial(self, profile: Profile, number: int) -> tuple[float, bool]:
        words = {f"{name}/{value}" for name, value in vars(profile).items()}
        if self.impossible in words:
            raise CannotTryError("it caught fire")
        self.trials.append(profile)
        if profile not in self.made:
            self.spent += self._making_s
            self.made.add(profile)
        seconds = 0.5 * self._random.lognormvariate(0, self.noise)
        for word in words:
            seconds /= self.factors.get(word, 1.0)
        self.spent += seconds
        return seconds / 100, False


def search(bench: Bench, fixed: tuple[str, ...] = (), budget_s: float = 1000, machine: Machine = MACHINE) -> Search:
    found = Search(
        bench.trial,
        bench.made.discard,
        lambda: bench.spent,
        budget_s,
        lambda name, now: [(choice.profile, choice.problem) for choice in choices(name, now, machine)],
    )
    found.run(START, FIELDS, fixed)
    return found


def _key(found: Search, key: str) -> Finding | None:
    return next((finding for finding in found.findings if finding.key == key), None)


def test_the_fastest_is_found_field_by_field() -> None:
    factors = {"dtype/bfloat16": 1.8, "memory_format/contiguous": 0.8, "threads/4": 1.2, "prefetch/1": 1.1}
    found = search(Bench(factors))
    assert found.best == Profile(threads=4, dtype="bfloat16", prefetch=1)
    by_key = {finding.key: finding for finding in found.chosen()}
    assert by_key["dtype/bfloat16"].value == pytest.approx(1.8, rel=0.05)
    assert by_key["factor"].value == pytest.approx(1.8 * 1.2 * 1.1, rel=0.05)
    low, high = by_key["factor"].low, by_key["factor"].high
    assert low is not None
    assert high is not None
    assert low < 1.8 * 1.2 * 1.1 < high
    assert by_key["samples_per_s/default"].value == pytest.approx(200, rel=0.05)
    chosen = {key for key, finding in by_key.items() if finding.chosen}
    assert {"dtype/bfloat16", "threads/4", "prefetch/1", "compile/off", "interop_threads/1"} <= chosen
    assert not chosen & {"dtype/float32", "threads/2", "compile/on"}


def test_two_batches_ahead_are_tried_only_after_one_was_a_gain() -> None:
    keys = {finding.key for finding in search(Bench({"prefetch/1": 0.9})).findings}
    assert "prefetch/1" in keys
    assert "prefetch/2" not in keys
    keys = {finding.key for finding in search(Bench({"prefetch/1": 1.2, "prefetch/2": 1.1})).findings}
    assert "prefetch/2" in keys


def test_what_is_clear_takes_few_trials_and_what_is_not_takes_no_more_than_enough() -> None:
    clear = {finding.key: finding.n for finding in search(Bench({"dtype/bfloat16": 2.0})).findings}
    assert clear["dtype/bfloat16"] == LEAST_PAIRS
    noisy = search(Bench({}, noise=0.3))
    assert max(finding.n for finding in noisy.findings) == MOST_PAIRS


def test_without_a_gain_the_default_stays() -> None:
    found = search(Bench({}, noise=0.001))
    by_key = {finding.key: finding for finding in found.chosen()}
    assert found.best == START
    assert "factor" not in by_key
    assert by_key["samples_per_s/tuned"].note == "it is the default"
    assert by_key["samples_per_s/tuned"].n == FINAL_PAIRS


def test_where_all_are_equal_the_default_nearly_always_stays() -> None:
    searches = [search(Bench({}, noise=0.035, seed=seed)) for seed in range(300)]
    assert sum(found.best != START for found in searches) <= 6
    # The final trials see to it; what they must take back is little, since each field is chosen with care.
    assert sum(_key(found, "taken_back") is not None for found in searches) <= 0.2 * len(searches)


def test_a_real_gain_is_found_in_the_same_noise() -> None:
    searches = [search(Bench({"memory_format/contiguous": 1.3}, noise=0.035, seed=seed)) for seed in range(50)]
    assert sum(found.best.memory_format == "contiguous" for found in searches) >= 49


def test_a_choice_that_the_final_trials_do_not_confirm_is_taken_back() -> None:
    bench = Bench({"dtype/bfloat16": 1.3})
    phases: list[str] = []

    def trial(profile: Profile, number: int) -> tuple[float, bool]:
        if phases[-1:] == ["the choice against the default"]:
            bench.factors = {}
        return bench.trial(profile, number)

    found = Search(
        trial,
        bench.made.discard,
        lambda: bench.spent,
        1000,
        lambda name, now: [(choice.profile, choice.problem) for choice in choices(name, now, MACHINE)],
        lambda _search, phase: phases.append(phase),
    )
    found.run(START, FIELDS, ())
    assert found.best == START
    taken_back = _key(found, "taken_back")
    assert taken_back is not None
    assert taken_back.value == pytest.approx(1, abs=0.03)
    assert "the default stays" in taken_back.note
    # What is stored and told is the default's, everywhere.
    by_key = {finding.key: finding for finding in found.chosen()}
    assert by_key["dtype/float32"].chosen
    assert not by_key["dtype/bfloat16"].chosen
    assert by_key["samples_per_s/tuned"].note == "it is the default"
    assert by_key["samples_per_s/tuned"].value == by_key["samples_per_s/default"].value
    assert Tuned("j1", 0.0, found.best, {}, found.chosen()).words.endswith("nothing is faster than the default")


def test_making_the_default_again_costs_the_final_trials_none_of_their_number() -> None:
    found = search(Bench({"dtype/bfloat16": 1.8}, making_s=30), budget_s=400)
    factor = _key(found, "factor")
    assert factor is not None
    assert factor.n == FINAL_PAIRS


def test_what_the_user_fixed_is_not_tried() -> None:
    bench = Bench({"dtype/bfloat16": 1.8})
    found = search(bench, fixed=("dtype", "threads"))
    assert {profile.dtype for profile in bench.trials} == {"float32"}
    assert {profile.threads for profile in bench.trials} == {2}
    assert [finding.note for finding in found.findings if finding.key == "dtype/float32"] == ["as given"]


def test_what_cannot_be_tried_is_reported_and_stops_nothing() -> None:
    found = search(Bench({"prefetch/1": 1.5}, impossible="compile/True"))
    by_key = {finding.key: finding for finding in found.findings}
    assert by_key["compile/on"].value is None
    assert "it caught fire" in by_key["compile/on"].note
    assert found.best.prefetch == 1
    assert "one operator" in by_key["interop_threads/2"].note


def test_a_default_that_cannot_be_tried_ends_the_search() -> None:
    with pytest.raises(CannotTryError):
        search(Bench({}, impossible="dtype/float32"), fixed=("dtype",))


@pytest.mark.parametrize("budget_s", [3.0, 20.0, 60.0])
def test_it_ends_within_its_time_and_says_what_there_was_none_for(budget_s: float) -> None:
    bench = Bench({"dtype/bfloat16": 1.8}, noise=0.2)
    found = search(bench, budget_s=budget_s)
    final_s = 2 * FINAL_PAIRS * 0.5 * 2
    assert bench.spent < 0.8 * budget_s + final_s
    assert any("the time was over" in finding.note for finding in found.findings) or budget_s > 20
    assert found.findings[-1].key in {"factor", "samples_per_s/tuned"}


def test_a_pair_that_was_torn_apart_is_made_again() -> None:
    bench = Bench({"dtype/bfloat16": 1.8}, noise=0.0)
    count = itertools.count()

    def trial(profile: Profile, number: int) -> tuple[float, bool]:
        seconds, _ = bench.trial(profile, number)
        held = next(count) == 5
        return (seconds * 100 if held else seconds), held

    found = Search(
        trial,
        lambda profile: None,
        lambda: bench.spent,
        1000,
        lambda name, now: [(choice.profile, choice.problem) for choice in choices(name, now, MACHINE)],
    )
    found.run(START, FIELDS, ())
    assert found.best == Profile(threads=2, dtype="bfloat16")


def test_channels_last_is_not_offered_on_mps_nor_float16_on_the_cpu() -> None:
    machine = Machine(devices=["cpu", "mps"], bfloat16=False, threads=[4], nnpack=False)
    on_mps = choices("device", START, machine)[0].profile
    assert (on_mps.device, on_mps.memory_format) == ("mps", "contiguous")
    assert choices("memory_format", on_mps, machine) == []
    assert choices("nnpack", START, machine) == []
    assert [choice.profile.dtype for choice in choices("dtype", on_mps, machine)] == ["bfloat16", "float16"]
    (bfloat16,) = choices("dtype", START, machine)
    assert "no instructions" in bfloat16.problem
