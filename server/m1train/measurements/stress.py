"""`stress`: keeps the processor and the memory busy for a while, and measures how fast they are and stay.

The works have their turns one after the other, a second each or less. Within a turn the profile's threads work for the
given part of each tenth of a second and rest for the rest of it. A work's rate counts the time in which it worked, so
it says what the machine can while it works, whatever the load.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from m1.errors import M1Error, Reason
from m1.journal import Finding
from m1.trials import Estimate, median_interval, paired_ratio

from m1train.measurements.context import MeasurementContext
from m1train.measurements.declared import StressConfig
from m1train.measurements.sensors import energy_j, peak_memory_mb, temperature_c
from m1train.measurements.work import Plan, Work, plans

_SLICE_S = 0.1
_TURN_S = 1.0
# The beginning and the end whose speeds are compared: a minute, or a tenth of the whole where that is less.
_WINDOW_S, _WINDOW_FRACTION = 60.0, 0.1
_PUBLISH_S = 5.0
_METRICS = {"matmul_float32": "stress/gflops", "triad": "stress/bandwidth_gb_per_s"}
_TOO_SHORT = "it was over before its turn came: give it a longer duration_s"


@dataclass
class _Tally:
    """What has been measured so far."""

    rates: list[tuple[int, float]] = field(default_factory=list)
    """Which work, and how fast it was, turn by turn."""
    work_s: float = 0.0
    """Wall time of the turns that count, rests included."""
    cpu_s: float = 0.0
    energy_j: float = 0.0
    hottest_c: float = -math.inf


class Stress:
    """The measurement."""

    def __init__(self, config: StressConfig, clock: Callable[[], float] = time.perf_counter) -> None:
        self.config = config
        self._clock = clock

    def measure(self, context: MeasurementContext) -> None:
        """Work for duration_s.

        Raises:
            StopRequested: the daemon wants this process to go.
            M1Error: OUT_OF_MEMORY, INVALID_SETTING: the memory limit.
        """
        context.plan(0)
        context.phase("set up")
        chosen, works = self._set_up(context)
        turn_s = min(_TURN_S, self.config.duration_s / (3 * len(works)))
        context.plan(max(1, round(self.config.duration_s / turn_s)))
        context.phase("stress")
        tally = _Tally()
        published = self._clock()
        while tally.work_s < self.config.duration_s:
            self._turn(context, tally, works, min(turn_s, self.config.duration_s - tally.work_s))
            if self._clock() - published >= _PUBLISH_S:
                published = self._clock()
                context.found(self._findings(chosen, works, tally, context.profile.threads))
        context.plan(context.done)
        context.found(self._findings(chosen, works, tally, context.profile.threads))

    def _set_up(self, context: MeasurementContext) -> tuple[list[Plan], list[Work]]:
        """What was chosen, and those of it that the memory suffices for."""
        limit_mb, before_mb = self.config.memory_limit_mb, peak_memory_mb()
        left = int((limit_mb - before_mb) * 1e6)
        chosen = [plan for plan in plans(context.profile.threads, left) if self.config.work in ("all", plan.group)]
        works = []
        for plan in chosen:
            # All of them stay, and an allocator keeps what one has freed: what counts is the sum of their bounds.
            if plan.bytes <= left:
                left -= plan.bytes
                works.append(plan.make())
                works[-1].call()
                context.heed()
        if not works:
            least = math.ceil(before_mb + min(plan.bytes for plan in chosen) / 1e6) + 1
            raise M1Error(
                Reason.INVALID_SETTING,
                f"memory_limit_mb={limit_mb} does not suffice: torch itself takes {before_mb:.0f} MB",
                f"allow it {least} MB at least",
                field="settings.memory_limit_mb",
                value=str(limit_mb),
            )
        self._check_memory()
        return chosen, works

    def _check_memory(self) -> float:
        peak_mb = peak_memory_mb()
        if peak_mb > self.config.memory_limit_mb:
            message = f"it took {peak_mb:.0f} MB of memory, more than memory_limit_mb={self.config.memory_limit_mb}"
            raise M1Error(Reason.OUT_OF_MEMORY, message, "allow it more: this much was not foreseen")
        return peak_mb

    def _turn(self, context: MeasurementContext, tally: _Tally, works: Sequence[Work], seconds: float) -> None:
        """One work's turn; all that was measured in one that was held is thrown away, and it has another."""
        index = len(tally.rates) % len(works)
        while True:
            began, cpu_before, energy_before = self._clock(), _cpu_s(), energy_j().value
            rate = self._rate(context, works[index], seconds)
            if rate is not None:
                break
        tally.rates.append((index, rate))
        tally.work_s += self._clock() - began
        tally.cpu_s += _cpu_s() - cpu_before
        energy_after, degrees = energy_j().value, temperature_c().value
        if energy_before is not None and energy_after is not None:
            tally.energy_j += max(0.0, energy_after - energy_before)
        values = {_METRICS.get(works[index].key, f"stress/{works[index].key}"): rate}
        if degrees is not None:
            tally.hottest_c = max(tally.hottest_c, degrees)
            values["stress/temperature_c"] = degrees
        context.part_done(values | {"stress/memory_mb": self._check_memory()})

    def _rate(self, context: MeasurementContext, work: Work, seconds: float) -> float | None:
        """What the work does in a second of working; None when it was held in between."""
        began, worked_s, calls = self._clock(), 0.0, 0
        while calls == 0 or self._clock() - began < seconds:
            if context.heed():
                return None
            slice_began = self._clock()
            while (busy_s := self._clock() - slice_began) < _SLICE_S * self.config.load:
                work.call()
                calls += 1
            worked_s += busy_s
            rested_at = self._clock() + busy_s * (1 / self.config.load - 1)
            while self._clock() < rested_at:
                context.control.rest()
                if context.heed():
                    return None
        return calls * work.amount / worked_s

    def _findings(self, chosen: Sequence[Plan], works: Sequence[Work], tally: _Tally, threads: int) -> list[Finding]:
        made = {work.key: (index, work) for index, work in enumerate(works)}
        found = []
        for plan in chosen:
            key = f"stress/{plan.key}"
            if plan.key not in made:
                note = f"left out: it may take {plan.bytes / 1e6:.0f} MB, and memory_limit_mb leaves less"
                found.append(Finding(key, plan.title, None, "", n=0, note=note))
                continue
            index, work = made[plan.key]
            rates = [rate for which, rate in tally.rates if which == index]
            if rates:
                found.append(_finding(key, work.title, work.unit, median_interval(rates), work.note))
            else:
                found.append(Finding(key, work.title, None, work.unit, n=0, note=_TOO_SHORT))
        return [*found, self._slowdown(tally, len(works)), *self._conditions(tally, threads)]

    def _slowdown(self, tally: _Tally, n_works: int) -> Finding:
        """The speed at the end over the speed at the beginning, work by work and turn by turn."""
        key, title = "stress/end_over_beginning", "speed at the end over that at the beginning"
        # Whole cycles, so that each turn of the end has one of the same work at the beginning.
        cycles = len(tally.rates) // n_works
        window_s = min(_WINDOW_S, _WINDOW_FRACTION * self.config.duration_s)
        compared = max(1, min(cycles // 2, round(cycles * window_s / self.config.duration_s))) * n_works
        if cycles < 2:
            return Finding(key, title, None, "x", n=0, note="not measured: it was too short to compare its ends")
        last = cycles * n_works
        beginning = [rate for _, rate in tally.rates[:compared]]
        end = [rate for _, rate in tally.rates[last - compared : last]]
        seconds = compared * tally.work_s / len(tally.rates)
        note = f"the first and the last {seconds:.0f} s; below 1 it has become slower: heat, or other programs"
        return _finding(key, title, "x", paired_ratio(end, beginning), note)

    def _conditions(self, tally: _Tally, threads: int) -> list[Finding]:
        turns = len(tally.rates)
        reached = 100 * tally.cpu_s / (threads * tally.work_s) if tally.work_s else None
        plural = "s" if threads > 1 else ""
        load_note = f"{100 * self.config.load:g} % was asked for; CPU time of the process, of {threads} thread{plural}"
        heat, energy = temperature_c(), energy_j()
        hottest = tally.hottest_c if math.isfinite(tally.hottest_c) else None
        watts = tally.energy_j / tally.work_s if energy.value is not None and tally.work_s else None
        limit = f"the limit is {self.config.memory_limit_mb} MB; the most that was resident, torch included"
        return [
            Finding("stress/load", "load that was reached", reached, "%", n=turns, note=load_note),
            Finding("stress/peak_memory", "memory", peak_memory_mb(), "MB", n=1, note=limit),
            Finding("stress/temperature", "highest temperature", hottest, "°C", n=turns, note=heat.source),
            Finding("stress/power", "mean power", watts, "W", n=turns, note=energy.source),
        ]


def _finding(key: str, title: str, unit: str, estimate: Estimate, note: str) -> Finding:
    return Finding(key, title, estimate.value, unit, estimate.low, estimate.high, estimate.n, note=note)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
