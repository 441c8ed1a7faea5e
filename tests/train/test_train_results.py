"""Results: files of the job, bounded, replaced by name; what cannot be stored is said, and ends nothing."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from m1.jobdir import result_path, results_path
from m1.journal import JournalWriter, Notice, Record, Result, read_journal
from m1.limits import MOST_RESULTS, RESULT_BYTES
from m1.process.journal import Journal
from m1train.job.results import Results, encoded
from m1train.recipe import Picture, Table, Text
from m1train.task.recipe import UnfitError
from PIL import Image

RANKS = Table("ranks", "Where it stands.", ("name", "rank"), [("a", 1), ("b", 0.5)], units={"rank": "fraction"})


class Kept:
    """The results of a job in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writer = JournalWriter(directory / "journal")
        self.results = Results(directory, Journal(self.writer))

    def said(self) -> list[Record]:
        return [entry.record for entry in read_journal(self.directory / "journal", 0)]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    with closing(made.writer):
        yield made


def read(table: Table) -> tuple[dict[str, object], str]:
    content, form, truncated = encoded(table)
    assert form == "table"
    assert len(content) <= RESULT_BYTES
    data: dict[str, object] = json.loads(content)
    return data, truncated


def test_a_table_a_text_and_a_picture_are_stored_and_said(kept: Kept) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    kept.results.store([RANKS, Text("poem", "What it wrote.", "ä\n"), Picture("sheet", "What it saw.", pixels)], 7)
    content = {
        name: result_path(kept.directory, name, form).read_bytes()
        for name, form in (("ranks", "table"), ("poem", "text"), ("sheet", "image"))
    }
    assert json.loads(content["ranks"]) == {
        "columns": [{"name": "name", "unit": ""}, {"name": "rank", "unit": "fraction"}],
        "rows": [["a", 1], ["b", 0.5]],
    }
    assert content["poem"] == "ä\n".encode()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content["sheet"]))), pixels)
    said = [record for record in kept.said() if isinstance(record, Result)]
    assert [(record.name, record.form, record.step, record.truncated) for record in said] == [
        ("ranks", "table", 7, ""),
        ("poem", "text", 7, ""),
        ("sheet", "image", 7, ""),
    ]
    assert [record.size_bytes for record in said] == [len(content[record.name]) for record in said]


def test_a_result_takes_the_place_of_the_one_before_with_its_name(kept: Kept) -> None:
    for step, words in ((1, "before"), (2, "after")):
        kept.results.store([Text("poem", "What it wrote.", words)], step)
    assert [file.name for file in results_path(kept.directory).iterdir()] == ["poem.txt"]
    assert result_path(kept.directory, "poem", "text").read_text() == "after"


def test_what_is_no_number_stands_in_a_table_as_its_word() -> None:
    data, _ = read(Table("f1", "", ("x",), [(float("nan"),), (None,), (float("inf"),)]))
    assert data["rows"] == [["nan"], [None], ["inf"]]


def test_a_table_larger_than_allowed_is_cut_and_says_so() -> None:
    rows = [(f"row {i}", i) for i in range(600_000)]
    data, truncated = read(Table("ranks", "", ("name", "rank"), rows))
    kept = data["rows"]
    assert isinstance(kept, list)
    assert 100_000 < len(kept) < 600_000
    assert truncated == f"the first {len(kept):,} of 600,000 rows"
    assert kept[-1] == list(rows[len(kept) - 1])


def test_a_table_whose_first_rows_are_its_longest_says_how_many_are_left() -> None:
    rows = [("x" * 100_000,)] * 200 + [("y",)] * 100_000
    data, truncated = read(Table("words", "", ("word",), rows, truncated="the longest 100,200 words"))
    kept = data["rows"]
    assert isinstance(kept, list)
    assert 0 < len(kept) <= 83
    assert truncated == f"the first {len(kept)} of 100,200 rows, of the longest 100,200 words"


def test_a_long_text_is_cut_at_a_whole_letter() -> None:
    content, _, truncated = encoded(Text("poem", "", "a" + "ä" * RESULT_BYTES))
    assert RESULT_BYTES - 2 < len(content) <= RESULT_BYTES
    assert set(content.decode()) == {"a", "ä"}
    assert truncated == f"the first {len(content):,} of {2 * RESULT_BYTES + 1:,} bytes"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Text("../spec", "", "no"), 'gives a result called "../spec"'),
        (Text("Poem", "", "no"), 'gives a result called "Poem"'),
        (Text("x" * 10**6, "", "no"), 'gives a result called "xxx'),
        (Table("wide", "", ("x" * RESULT_BYTES,), []), 'gives a table "wide" too large'),
    ],
)
def test_what_cannot_be_a_result_is_refused_by_name_and_said_once_in_a_training(
    kept: Kept, result: Table | Text, said: str
) -> None:
    with pytest.raises(UnfitError) as refused:
        encoded(result)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 500
    for step in (1, 2):
        kept.results.store([result, RANKS], step)
    notices = [record.message for record in kept.said() if isinstance(record, Notice)]
    assert len(notices) == 1, "of every validation the same"
    assert said in notices[0]
    assert [file.name for file in results_path(kept.directory).iterdir()] == ["ranks.json"], "the next one is stored"


def test_a_disk_that_refuses_costs_the_result_alone(kept: Kept) -> None:
    results_path(kept.directory).write_text("what a lost volume looks like")
    kept.results.store([RANKS], 1)
    (notice,) = kept.said()
    assert isinstance(notice, Notice)
    assert notice.message.startswith("the result ranks could not be stored (")
    results_path(kept.directory).unlink()
    kept.results.store([RANKS], 2)
    assert result_path(kept.directory, "ranks", "table").exists()


def test_a_job_has_no_more_results_than_allowed_and_those_are_replaced_on(kept: Kept) -> None:
    many = [Text(f"sample-{i}", "", "before") for i in range(MOST_RESULTS + 100)]
    kept.results.store(many, 1)
    kept.results.store([Text("sample-3", "", "after")], 2)
    assert len(list(results_path(kept.directory).iterdir())) == MOST_RESULTS
    assert result_path(kept.directory, "sample-3", "text").read_text() == "after"
    notices = [record.message for record in kept.said() if isinstance(record, Notice)]
    assert 0 < len(notices) <= MOST_RESULTS
    assert f"the job has {MOST_RESULTS} results: use the same names again" in notices[0]


def test_a_title_of_any_length_is_said_in_few_words(kept: Kept) -> None:
    kept.results.store([Text("poem", "t" * 10**6, "short")], 1)
    (said,) = kept.said()
    assert isinstance(said, Result)
    assert len(said.title) <= 500
