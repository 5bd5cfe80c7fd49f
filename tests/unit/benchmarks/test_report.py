"""The benchmarks' reports: what they claim with and without an A/A arm, the raw file, and the short table."""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.counts.table import Count, Counts
from benchmarks.method.goals import Cause, Goals
from benchmarks.method.results import Results
from benchmarks.method.trial import Sample
from benchmarks.report import raw, short, text
from benchmarks.report.text import Words

WORDS = Words("Title", "Cost.", "Rates", "loop", "CPU time")
FACTS = {"cpu": "a CPU", "python": "a Python", "when": "then", "penstock": "this"}
CLAIMS = ("ahead of", "behind", ": met", "level with")


def run(again: list[float] | None, other: float = 500.0, rounds: int = 5) -> Results:
    arms = {"penstock": [100.0] * rounds, "uvloop": [other] * rounds, **({"penstock:again": again} if again else {})}
    found = Results(list(arms), Goals.load("loops"))
    for row in ("call_soon chain, 0 arguments", "run_in_executor"):
        for arm, values in arms.items():
            for number, value in enumerate(values):
                found.add(row, number, arm, Sample(value, 1e9 / value, 1.0, 2.0))
    return found


def tables(results: Results) -> str:
    return "\n".join(text.piped(table) for table in (text.cost_table(results), text.goal_table(results)) if table)


def test_a_run_with_an_a_a_arm_says_ahead_and_met() -> None:
    results = run([100, 101, 99, 100, 102])
    assert tables(results).count("ahead of uvloop") == 2
    assert tables(results).count(": met") == 3
    assert "Goals: 3 met." in text.judgement(results)


def test_a_run_without_an_a_a_arm_claims_nothing_and_says_so() -> None:
    results = run(None)
    assert text.NO_TWIN in text.judgement(results)
    assert "reach 3 of 3 goals" in text.judgement(results)
    assert not [claim for claim in CLAIMS if claim in tables(results)]


def test_a_run_within_the_noise_claims_nothing() -> None:
    results = run([100, 600, 20, 100, 300])
    assert "level with uvloop" in tables(results)
    assert "Goals: 3 open." in text.judgement(results)


def test_a_run_of_few_rounds_claims_nothing() -> None:
    results = run([100.0] * 4, rounds=4)
    assert "Goals: 3 not judged." in text.judgement(results)
    assert not [claim for claim in CLAIMS if claim in tables(results)]


def test_losses_are_told_with_and_without_an_a_a_arm() -> None:
    for again in (None, [100.0] * 5):
        assert "call_soon chain, 0 arguments; run_in_executor" in text.losses(run(again, other=50), WORDS)


def test_each_geometric_mean_has_a_sentence_with_its_interval_and_its_outcome() -> None:
    told = text.means(run([100, 101, 99, 100, 102]))
    assert [sentence.partition(" times as cheap as ")[2][:8] for sentence in told] == ["the best", "uvloop; "]
    assert all("over 2 plain rows: penstock is 5.00 (5.00-5.00)" in sentence for sentence in told)
    assert all(sentence.endswith(": met.") for sentence in told)


def test_a_geometric_mean_without_an_a_a_arm_is_not_judged() -> None:
    told = text.means(run(None))
    assert all(sentence.endswith(": not judged, the median reaches it.") for sentence in told)


def test_a_lost_row_keeps_its_ratio_and_has_its_cause() -> None:
    results = run([100.0] * 5, other=50)
    results.goals = replace(results.goals, causes=(Cause("run_in_*", "two threads take turns"),))
    table = text.loss_table(results)
    assert [(line[0], line[1], line[-1]) for line in table[1:]] == [
        ("call_soon chain, 0 arguments", "0.50 (0.50-0.50) uvloop", ""),
        ("run_in_executor", "0.50 (0.50-0.50) uvloop", "two threads take turns"),
    ]
    assert not text.loss_table(run([100.0] * 5))


def test_a_raw_file_gives_the_same_results_again(tmp_path: Path) -> None:
    results = run([100, 101, 99, 100, 102])
    results.failures["uvloop", "a row"] = "it broke"
    raw.save(raw.Run("loops", results, FACTS, ["a note"]), tmp_path / "new" / "loops.json")
    again = raw.load(tmp_path / "new" / "loops.json")
    assert again == raw.Run("loops", results, FACTS, ["a note"])


def test_a_raw_file_keeps_the_counts_and_the_report_shows_them(tmp_path: Path) -> None:
    results, counts = run(None), Counts({"run_in_executor": {"penstock": Count(2320.0, 4.0)}}, ["counted here"])
    raw.save(raw.Run("loops", results, FACTS, [], counts), tmp_path / "loops.json")
    again = raw.load(tmp_path / "loops.json")
    assert again.counts == counts
    shown = text.to_markdown(results, [], WORDS, "", again.counts)
    assert "| run_in_executor | 2,320 / 4.00 | - |" in shown and "- counted here" in shown
    assert text.COUNTS not in text.to_markdown(results, [], WORDS, "")


def test_a_raw_file_that_is_missing_is_told_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make bench"):
        raw.load(tmp_path / "loops.json")


def test_the_short_table_travels_between_markers() -> None:
    summary = f"before\n{short.block('loops', run(None), FACTS, WORDS)}\nafter"
    table = short.extracted("loops", summary)
    assert table is not None and "| run_in_executor |" not in table and "| call_soon chain, 0 arguments |" in table
    page = "# Page\n\n<!-- table: loops -->\nold\n<!-- end -->\n\nmore"
    filled = short.filled("loops", page, table)
    assert filled is not None and table in filled and "old" not in filled and filled.endswith("more")
    assert short.filled("tasks", page, table) is None


def test_the_short_table_has_the_worst_losses_and_at_most_ten_rows() -> None:
    results = run(None)
    for at in range(20):
        results.add(f"row {at}", 0, "penstock", Sample(100.0))
        results.add(f"row {at}", 0, "uvloop", Sample(90.0 - at))
    found = short.chosen(results)
    assert len(found) == 10
    assert found[:2] == ["call_soon chain, 0 arguments", "row 19"]
