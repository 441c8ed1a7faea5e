"""The plans of `cifar-fast`: what is trained in how much time. Imports no torch.

A plan is chosen from a ladder whose rungs grow in cost by little: the measured ones (BUDGETS) and, between
them, one more epoch or a larger image at a time. docs/benchmarks.md has how the measured ones were chosen, what they
reach, and how long they take on which machine; beyond `full` its epochs become more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from m1.errors import M1Error, Reason, shortened
from m1.settings import Value
from m1.units import format_duration

from m1train.task.planning import Choosing, Counts, Pace, Planned

if TYPE_CHECKING:
    from m1train.recipes.cifar_fast import CifarFastConfig

FULL = "full"
_SMALLEST, _LARGEST = 16, 32
_WIDEST = 1024
_MOST_SIZES = 100
_NUMBER = r"([0-9]{1,6}(?:\.[0-9]+)?)"
_LENGTH = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m(?:in)?)?(?:{_NUMBER}s)?")
_LONGEST_S = 30 * 86_400.0


@dataclass(frozen=True)
class Plan:
    """What is trained."""

    sizes: tuple[int, ...]
    """The images' side in pixels, spread over the epochs. The last is that of an evaluation, too.

    Of one more than a multiple of 8 no row is lost: the whitening takes one, and the rest is halved three times.
    """
    widths: tuple[int, ...]
    """The channels of the three groups."""
    lr: float
    """Muon's learning rate at its highest: the longer the training, the lower."""
    epochs: int = 0
    """With 0 there is one for each size."""

    @property
    def length(self) -> int:
        """How many epochs there are."""
        return self.epochs or len(self.sizes)

    def side(self, epoch: int) -> int:
        """The images' side in an epoch, counted from 0."""
        return self.sizes[epoch * len(self.sizes) // self.length]

    @property
    def cost(self) -> float:
        """Estimate the multiplications for an image in all epochs: what a plan takes is about in proportion to it."""
        first, second, third = self.widths
        # A group's first convolution has the side that comes in, its second half of that.
        pixels = 24 * first + (first**2 + first * second) / 4 + (second**2 + second * third) / 16 + third**2 / 64
        return 9 * pixels * sum(self.side(epoch) ** 2 for epoch in range(self.length))

    @property
    def words(self) -> str:
        """As a person says it: "3 epochs at 17 to 25 px"."""
        epochs = f"{self.length} epoch{'s' if self.length > 1 else ''}"
        sides = [self.side(epoch) for epoch in range(self.length)]
        return f"{epochs} at {sides[0]} px" if sides[0] == sides[-1] else f"{epochs} at {sides[0]} to {sides[-1]} px"


_NARROW, _WIDE = (64, 128, 256), (64, 256, 256)
_GROWING = (17, 17, 21, 21, 25, 25)
BUDGETS: Mapping[str, Plan] = {
    "1min": Plan((17, 17), _NARROW, 0.24),
    "2min": Plan((17, 21, 25), _NARROW, 0.24),
    "5min": Plan((17, 17, 17, 25, 25, 32, 32), _NARROW, 0.12),
    FULL: Plan((*_GROWING, 32, 32, 32, 32, 32, 32), _WIDE, 0.12),
}
"""What each budget's name meant in 0.1.0, and means where the settings hold no plan."""

_SHORT = (
    (17,),
    (17, 17),
    (17, 21),
    (17, 17, 21),
    (17, 21, 21),
    (17, 21, 25),
    (17, 17, 21, 25),
    (17, 17, 25, 25),
    (17, 21, 25, 25),
    (17, 17, 21, 25, 25),
    (17, 17, 21, 25, 32),
    (17, 17, 17, 21, 25, 32),
    (17, 17, 17, 25, 25, 32),
    (17, 17, 17, 25, 32, 32),
    (17, 17, 17, 25, 25, 32, 32),
)
_MOST_EPOCHS = 96


def ladder() -> Iterator[Plan]:
    """Give the plans that are chosen from, the cheapest first."""
    for sizes in _SHORT:
        yield Plan(sizes, _NARROW, _rate(len(sizes)))
    for widths, fewest in ((_NARROW, 2), (_WIDE, 3)):
        for large in range(fewest, 7):
            yield Plan(_GROWING + (32,) * large, widths, 0.12)
    for epochs in range(len(BUDGETS[FULL].sizes) + 1, _MOST_EPOCHS + 1):
        yield replace(BUDGETS[FULL], epochs=epochs)


def _rate(epochs: int) -> float:
    """Muon's rate: 0.24 up to three epochs and 0.12 from seven on, where it was measured; between them it falls."""
    between = min(max(epochs - 3, 0), 4) / 4
    return round(0.24 * math.pow(0.5, between), 2)


def settled(config: CifarFastConfig) -> Plan:
    """Give the plan of some settings: what they say, and for the rest what their budget's name meant in 0.1.0.

    Raises:
        M1Error: INVALID_SETTING, where they say too little, or what cannot be.
    """
    length_s = seconds(config.budget)
    sizes = _numbers("sizes", config.sizes, _SMALLEST, _LARGEST, range(1, _MOST_SIZES + 1))
    widths = _numbers("widths", config.widths, 1, _WIDEST, range(3, 4))
    named = BUDGETS.get(config.budget)
    if named is None:
        if not (sizes and widths):
            raise M1Error(
                Reason.INVALID_SETTING,
                f'for the setting budget="{config.budget}" ({format_duration(length_s)}) no plan has been made',
                "submitting makes one; without a daemon, take what `python -m m1train plan` prints, "
                f"or one of {', '.join(BUDGETS)}",
                field="settings.budget",
                value=config.budget,
            )
        named = Plan(sizes, widths, _rate(config.epochs or len(sizes)))
    return Plan(sizes or named.sizes, widths or named.widths, config.lr or named.lr, config.epochs)


def seconds(budget: str) -> float:
    """Give a length of time in seconds: "90s", "2min", "1h30m"; infinity for "full".

    Raises:
        M1Error: INVALID_SETTING.
    """
    if budget == FULL:
        return math.inf
    found = _LENGTH.fullmatch(budget)
    parts = [float(part or 0) for part in found.groups()] if found else []
    length_s = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < length_s <= _LONGEST_S:
        problem = "is no length of time" if not (parts and budget) else "is out of bounds"
        raise M1Error(
            Reason.INVALID_SETTING,
            f'the setting budget="{shortened(budget, 60)}" {problem}',
            f'budget takes a length of time above 0 and up to 30 days, such as 90s, 2min or 1h30m, or "{FULL}"',
            field="settings.budget",
            value=shortened(budget, 60),
        )
    return length_s


def plan(config: CifarFastConfig, counts: Counts, pace: Callable[[], Pace], choosing: Choosing = "now") -> Planned:
    """Choose the dearest plan of the ladder that fits the budget on this machine; `pace` is asked only for a choice.

    Raises:
        M1Error: INVALID_SETTING, for a budget that no plan fits, or settings that cannot be.
    """
    budget_s = seconds(config.budget)
    there = config.sizes or config.widths or config.epochs or budget_s == math.inf
    if there or choosing == "never":
        settled(config)
    if there or choosing != "now":
        return Planned()
    prediction = _Prediction(config, counts, pace())
    best = _dearest(list(ladder()), budget_s, prediction, config.budget)
    promised_s = prediction.seconds(best)
    settings: dict[str, Value] = {
        "sizes": ",".join(map(str, best.sizes)),
        "widths": ",".join(map(str, best.widths)),
        "epochs": best.length,
        "lr": config.lr or best.lr,
        "promised_s": round(promised_s, 1),
    }
    return Planned(settings, round(promised_s, 1), _words(best, promised_s, prediction, counts))


def _dearest(rungs: list[Plan], budget_s: float, prediction: _Prediction, budget: str) -> Plan:
    """Find the last rung up to which all fit; begun where the first one's time says that it is about."""
    least_s = prediction.seconds(rungs[0])
    if least_s > budget_s:
        raise _too_short(budget, rungs[0], least_s)
    # Below half of the budget nothing is looked at, and so nothing is measured that only a cheaper plan has.
    about = [least_s * rung.cost / rungs[0].cost for rung in rungs]
    at = next((i for i, seconds in enumerate(about) if seconds > budget_s / 2), len(rungs) - 1)
    while at and prediction.seconds(rungs[at]) > budget_s:
        at -= 1
    while at + 1 < len(rungs) and prediction.seconds(rungs[at + 1]) <= budget_s:
        at += 1
    return rungs[at]


def _words(best: Plan, promised_s: float, prediction: _Prediction, counts: Counts) -> str:
    learnt = f"{prediction.learnt:,} images" if counts.train is not None else f"{prediction.learnt:,} images, assumed"
    longest = ", the longest plan that there is" if best.length == _MOST_EPOCHS else ""
    return f"{best.words}, about {format_duration(promised_s)} for {learnt}{longest}"


def _too_short(budget: str, least: Plan, least_s: float) -> M1Error:
    return M1Error(
        Reason.INVALID_SETTING,
        f'the setting budget="{budget}" is too short here',
        f"the least plan, {least.words}, takes about {format_duration(least_s)}: take budget={math.ceil(least_s)}s",
        field="settings.budget",
        value=budget,
    )


class _Prediction:
    """How long plans take: each kind of step, and of evaluation, is asked for once, when a plan has it."""

    # CIFAR-10's, for data that have not been read.
    _ASSUMED = Counts(50_000, 10_000)

    def __init__(self, config: CifarFastConfig, counts: Counts, pace: Pace) -> None:
        self._config = config
        self._pace = pace
        known = counts if counts.train is not None else self._ASSUMED
        assert known.train is not None
        apart = 0 if known.test is not None else max(1, round(known.train * config.test_fraction))
        self._tested = known.test if known.test is not None else apart
        self._validated = min(config.val_images, (known.train - apart) // 10)
        self.learnt = known.train - apart - self._validated
        whole, rest = divmod(self.learnt, config.batch_size)
        self._steps = whole + (rest > 1)
        self._known: dict[tuple[str, int, tuple[int, ...]], tuple[float, float]] = {}

    def seconds(self, plan: Plan) -> float:
        """Predict a training: its first steps, its steps, its evaluations and its checkpoints."""
        sides = [plan.side(epoch) for epoch in range(plan.length)]
        steps = {side: self._asked("step", side, plan.widths) for side in set(sides)}
        begun_s = sum(max(0.0, first - each) for first, each in steps.values())
        trained_s = self._steps * sum(steps[side][1] for side in sides)
        evaluation_s = self._asked("look", sides[-1], plan.widths)[1]
        checkpoint_s = self._asked("keep", _SMALLEST, plan.widths)[1]  # whatever the images' size is
        every = self._config.checkpoint_every_epochs
        checkpoints = math.ceil(plan.length / every) if every else 1
        judged = self._tested + self._validated * plan.length
        return begun_s + trained_s + judged * evaluation_s + checkpoints * checkpoint_s

    def _asked(self, what: str, side: int, widths: tuple[int, ...]) -> tuple[float, float]:
        key = what, side, widths
        if key not in self._known:
            config = replace(self._config, sizes=str(side), widths=",".join(map(str, widths)), epochs=1, lr=0.1)
            match what:
                case "step":
                    timed = self._pace.step(config)
                    self._known[key] = timed.first_s, timed.each_s
                case "look":
                    self._known[key] = 0.0, self._pace.evaluation(config)
                case _:
                    self._known[key] = 0.0, self._pace.checkpoint(config)
        return self._known[key]


def _numbers(name: str, text: str, least: int, most: int, counts: range) -> tuple[int, ...]:
    """Read "17,21,25"; nothing of an empty text."""
    if not text.strip():
        return ()
    words = [word.strip() for word in text.split(",")]
    found = tuple(int(word) for word in words if re.fullmatch("[0-9]{1,4}", word))
    right = len(found) == len(words) and all(least <= number <= most for number in found)
    if not right or len(found) not in counts:
        how_many = "three" if counts == range(3, 4) else f"up to {counts[-1]}"
        raise M1Error(
            Reason.INVALID_SETTING,
            f'the setting {name}="{shortened(text, 60)}" is not {how_many} such numbers',
            f"{name} takes {how_many} whole numbers from {least} to {most} with commas between them",
            field=f"settings.{name}",
            value=shortened(text, 60),
        )
    return found
