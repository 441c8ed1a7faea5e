"""The search for the fastest profile: one field after the other, each alternative against the best one so far.

The two are timed in short alternating trials, until the interval of their ratio says whether the alternative is a gain
that is worth it, or until there have been enough. A winner takes the other's place at once, so a field is measured on
what was chosen before it, and not every combination is. Looking at an interval again and again makes it a little too
narrow; what the whole gained is therefore measured anew at the end, by a number of trials that was fixed before, and
taken back unless that interval, too, says that it is a gain.

Nothing here knows torch or the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from m1.jobdir import Profile
from m1.journal import Finding
from m1.trials import Estimate, median_interval, paired_ratio

LEAST_PAIRS, MOST_PAIRS = 3, 10
# How many times as fast as the best one an alternative is at least, if it is worth being chosen.
_WORTH = 1.02
# Six are the least that bound a median; where a trial takes very long, there is no time for more than three.
FINAL_PAIRS, LEAST_FINAL_PAIRS = 7, 3
# The part of the time that one comparison may take, when it is not clear sooner.
_SHARE = 1 / 8
# The part of the time after which nothing new is tried: the rest is for the final trials.
_SEARCHING = 0.8


class CannotTryError(Exception):
    """A profile with which no trial can be made; its words say why."""


@dataclass
class Search:
    """A search under way, and what it has found."""

    trial: Callable[[Profile, int], tuple[float, bool]]
    """Makes a trial of a profile: the seconds that a sample takes, and whether the trial before it was long ago, so
    that the two are no pair. The same number stands for the same samples. Raises CannotTryError."""
    forget: Callable[[Profile], None]
    """Is told which profile needs no more trials for now."""
    spent_s: Callable[[], float]
    """How long all trials took so far."""
    budget_s: float
    alternatives: Callable[[str, Profile], Sequence[tuple[Profile, str]]]
    """What to try for a field in the place of a profile, and why not, where it cannot be."""
    publish: Callable[[Search, str], None] = lambda _search, _phase: None
    """Is told before each comparison what it is about."""
    unit: str = "samples"
    """What a sample is called."""
    comparisons: int = 0
    """Begun so far, the last one with the default included."""
    findings: list[Finding] = field(default_factory=list)
    best: Profile = field(default_factory=Profile)

    def run(self, start: Profile, fields: Sequence[str], fixed: Sequence[str]) -> None:
        """Find the best profile that has the fixed fields of the first one.

        Raises:
            CannotTryError: the first one itself.
        """
        self.best = start
        self.trial(start, 0)  # what cannot run at all is not worth a comparison
        for name in fields:
            if name in fixed:
                self._find(name, getattr(start, name), note="as given")
            else:
                self._choose(name)
        self._confirm(start)

    def chosen(self) -> list[Finding]:
        """What was found, with what the best profile has of it marked."""
        mine = {_key(name, value) for name, value in vars(self.best).items()}
        return [replace(finding, chosen=finding.key in mine) for finding in self.findings]

    def _choose(self, name: str) -> None:
        tried = [getattr(self.best, name)]
        offered = list(self.alternatives(name, self.best))
        if offered:
            self._find(name, tried[0], Estimate(1.0, None, None, 0))
        while offered:
            profile, problem = offered.pop(0)
            value, against = getattr(profile, name), getattr(self.best, name)
            tried.append(value)
            if not problem and self.spent_s() >= _SEARCHING * self.budget_s:
                problem = "the time was over"
            if problem:
                self._find(name, value, note=f"not measured: {problem}")
                continue
            self._begin(f"{name} {_word(value)}")
            try:
                ratio = self._compare(profile)
            except CannotTryError as error:
                self._find(name, value, note=f"not measured: {error}")
                self.forget(profile)
                continue
            self._find(name, value, ratio, note=f"against {_word(against)}")
            if _above(ratio, _WORTH):
                self.forget(self.best)
                self.best = profile
                offered = [it for it in self.alternatives(name, self.best) if getattr(it[0], name) not in tried]
            else:
                self.forget(profile)

    def _begin(self, phase: str) -> None:
        self.comparisons += 1
        self.publish(self, phase)

    def _compare(self, other: Profile) -> Estimate:
        """How many times as fast as the best one another profile is."""
        best: list[float] = []
        others: list[float] = []
        self.trial(other, 0)  # it may be that it cannot run at all
        number, began = 0, self.spent_s()
        while True:
            mine, its = self._pair(self.best, other, number)
            best.append(mine)
            others.append(its)
            number += 1
            ratio = paired_ratio(best, others)
            now = self.spent_s()
            enough = now - began >= _SHARE * self.budget_s or _clear(ratio)
            over = now >= _SEARCHING * self.budget_s
            if number >= MOST_PAIRS or over or (number >= LEAST_PAIRS and enough):
                return ratio

    def _pair(self, a: Profile, b: Profile, number: int) -> tuple[float, float]:
        """A trial of each, one right after the other; which is first alternates, so that a drift favours neither."""
        first, second = (a, b) if number % 2 == 0 else (b, a)
        while True:
            before, _ = self.trial(first, number)
            after, apart = self.trial(second, number)
            if not apart:
                return (before, after) if number % 2 == 0 else (after, before)

    def _confirm(self, start: Profile) -> None:
        """Measure the first profile against the best one, and go back to it if that is not clearly faster."""
        self._begin("the choice against the default" if self.best != start else "the default")
        before: list[float] = []
        after: list[float] = []
        if self.best != start:
            self.trial(start, 0)  # it may have been forgotten, and making it again is not what a pair takes
        began, count, number = self.spent_s(), FINAL_PAIRS, 0
        while number < count:
            if self.best == start:
                before.append(self.trial(start, number)[0])
            else:
                pair = self._pair(start, self.best, number)
                before.append(pair[0])
                after.append(pair[1])
            number += 1
            if number == 1:
                affordable = (self.budget_s - began) / (self.spent_s() - began)
                count = max(LEAST_FINAL_PAIRS, min(FINAL_PAIRS, int(affordable)))
        self._rate("default", f"{self.unit}/s with the default", before)
        gain = paired_ratio(before, after) if after else None
        title = "the choice against the default"
        if gain and _above(gain, 1):
            self._rate("tuned", f"{self.unit}/s with the choice", after)
            self.findings.append(_finding("factor", title, gain, "x"))
            return
        if gain:
            note = "not clearly faster: the default stays"
            self.findings.append(_finding("taken_back", title, gain, "x", note))
            self.forget(self.best)
            self.best = start
        self._rate("tuned", f"{self.unit}/s with the choice", before, note="it is the default")

    def _rate(self, key: str, title: str, seconds: Sequence[float], note: str = "") -> None:
        rate = median_interval([1 / s for s in seconds])
        self.findings.append(_finding(f"samples_per_s/{key}", title, rate, f"{self.unit}/s", note))

    def _find(self, name: str, value: object, ratio: Estimate | None = None, note: str = "") -> None:
        title = f"{name} {_word(value)}"
        self.findings.append(_finding(_key(name, value), title, ratio, "x", note))


def _finding(key: str, title: str, found: Estimate | None, unit: str, note: str = "") -> Finding:
    if found is None:
        return Finding(key, title, None, unit, n=0, note=note)
    return Finding(key, title, found.value, unit, found.low, found.high, found.n, note=note)


def _clear(ratio: Estimate) -> bool:
    return _above(ratio, _WORTH) or (ratio.high is not None and ratio.high < _WORTH)


def _above(ratio: Estimate, least: float) -> bool:
    return ratio.low is not None and ratio.low > least


def _key(name: str, value: object) -> str:
    return f"{name}/{_word(value)}"


def _word(value: object) -> str:
    words: Mapping[object, str] = {True: "on", False: "off"}
    return words[value] if isinstance(value, bool) else str(value)
