"""What a tuning found is stored, used, and told; what it cannot be used for, it is not used for."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from m1.jobdir import Profile, RecipeFile
from m1.journal import Finding, Findings
from m1.spec import JobSpec
from m1d.catalogue.profiles import UNTUNED, Profiles, machine_words
from m1d.jobs.job import Job
from m1d.machine.topology import CoreKind, Topology

MACHINE = Topology("Apple M1", (CoreKind("performance", 4, 4), CoreKind("efficiency", 4, 4)), 2**34)
CONDITIONS = {"torch": "2.9.0", "power": "mains"}
FOUND = Findings(
    [
        Finding("dtype/bfloat16", "dtype bfloat16", 1.8, "x", 1.7, 1.9, 5, chosen=True),
        Finding("factor", "the choice against the default", 2.1, "x", 2.0, 2.2, 7),
    ],
    Profile(threads=4, dtype="bfloat16", prefetch=1),
    CONDITIONS,
)
NOON = 1795348800.0


def job(recipe: str = "cifar", file: RecipeFile | None = None) -> Job:
    spec = JobSpec(kind="tuning", recipe=recipe, recipe_file=file)
    return Job(number=12, name="tune", spec=spec, position=0, create_time=NOON)


def profiles(home: Path, machine: Topology = MACHINE, **conditions: str) -> Profiles:
    return Profiles(home / "profiles", machine, lambda: CONDITIONS | conditions)


def test_without_a_tuning_the_machine_s_fastest_cores_serve(tmp_path: Path) -> None:
    assert profiles(tmp_path).default("cifar").profile == Profile(threads=4, origin=UNTUNED, optimizer_dtype="float32")


def test_a_recipe_that_is_meant_for_bfloat16_gets_it_where_the_processor_has_it(tmp_path: Path) -> None:
    newer = replace(MACHINE, cpu="Apple M2", bfloat16=True)
    assert profiles(tmp_path, newer).default("cifar-fast", bfloat16=True).profile.dtype == "bfloat16"
    assert profiles(tmp_path, newer).default("cifar").profile.dtype == "float32"
    assert profiles(tmp_path).default("cifar-fast", bfloat16=True).profile.dtype == "float32"


def test_what_a_tuning_found_is_the_recipe_s_default_and_says_where_it_is_from(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), FOUND, NOON)
    profile = profiles(tmp_path).default("cifar").profile
    assert profiles(tmp_path).default("cifar").source == "tuned"
    assert replace(profile, origin="", optimizer_dtype="bfloat16") == FOUND.profile
    assert profile.origin.startswith("m1ctl tune on 2026-11-2")
    assert profile.origin.endswith("(j12): 2.1 x the default")
    assert profiles(tmp_path).default("other").profile.origin == UNTUNED
    stored = json.loads((tmp_path / "profiles" / "cifar.json").read_text())
    assert stored["findings"][0]["low"] == 1.7
    assert stored["conditions"]["machine"] == "Apple M1, 4 performance and 4 efficiency cores"


def test_the_same_record_again_changes_nothing(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), FOUND, NOON)
    before = (tmp_path / "profiles" / "cifar.json").read_bytes()
    profiles(tmp_path).keep(job(), FOUND, NOON)
    assert (tmp_path / "profiles" / "cifar.json").read_bytes() == before


def test_what_is_found_on_the_way_is_not_stored(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), replace(FOUND, profile=None), NOON)
    assert profiles(tmp_path).default("cifar").profile.origin == UNTUNED


def test_a_recipe_file_s_profile_is_that_of_its_content(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job("Mine", RecipeFile("mine.py", "Mine", "ab" * 32)), FOUND, NOON)
    assert profiles(tmp_path).default("Mine", "ab" * 32).profile.dtype == "bfloat16"
    assert profiles(tmp_path).default("Mine", "cd" * 32).profile.origin == UNTUNED
    assert profiles(tmp_path).default("Mine").profile.origin == UNTUNED


def test_it_is_not_used_on_another_machine_which_is_said(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), FOUND, NOON)
    other = Topology("Apple M3", MACHINE.core_kinds, 2**34)
    chosen = profiles(tmp_path, other).default("cifar")
    assert (chosen.profile.dtype, chosen.source, chosen.profile.origin) == ("float32", "default", UNTUNED)
    assert chosen.stale[0].startswith("the machine was Apple M1, 4 performance")


def test_under_other_conditions_it_is_used_and_to_tune_again_is_suggested(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), FOUND, NOON)
    profile = profiles(tmp_path, torch="2.10.0", power="battery").default("cifar").profile
    assert profile.dtype == "bfloat16"
    assert profile.origin.endswith("2.1 x the default"), "what is out of date is said once, by its own field"
    chosen = profiles(tmp_path, torch="2.10.0", power="battery").default("cifar")
    assert (chosen.source, list(chosen.stale)) == (
        "tuned",
        ["power was mains, is battery", "torch was 2.9.0, is 2.10.0"],
    )


def test_of_another_device_it_says_nothing(tmp_path: Path) -> None:
    profiles(tmp_path).keep(job(), FOUND, NOON)
    assert profiles(tmp_path).default("cifar", device="mps").profile.origin == UNTUNED
    assert profiles(tmp_path).default("cifar", device="cpu").profile.dtype == "bfloat16"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"job": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_set_aside_and_reported_and_the_default_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    mine = profiles(tmp_path)
    mine.keep(job(), FOUND, NOON)
    path = tmp_path / "profiles" / "cifar.json"
    path.write_bytes(damage)
    with caplog.at_level(logging.ERROR):
        profile = mine.default("cifar").profile
    assert replace(profile, origin="") == Profile(threads=4, optimizer_dtype="float32")
    assert "is damaged" in caplog.text
    assert path.with_name("cifar.json.damaged").read_bytes() == damage
    # Said with every job until the recipe is tuned again.
    assert mine.default("cifar").stale
    mine.keep(job(), FOUND, NOON)
    assert mine.default("cifar").profile.dtype == "bfloat16"


def test_the_machine_is_called_by_its_processor_and_its_cores() -> None:
    assert machine_words(Topology("EPYC", (CoreKind("uniform", 8, 16),), 1)) == "EPYC, 8 uniform (16 threads) cores"
