"""The page as a whole: what it shows of made runs, and what it says where there is nothing to show."""

import itertools
import re

import pytest
from artifact_makers import made
from reports.page.page_runs import ITEMS, predictions, released, runs
from reports.page.test_page_html import Reader

from peso_cli.commands.report import report
from peso_cli.reports.collected import collect
from peso_cli.reports.page.section import Subject
from peso_cli.reports.page.sections import (
    differences,
    drift,
    forgetting,
    samples,
    significance,
    strength,
    summary,
    training,
)
from peso_cli.reports.selection import select


def section_of(page, anchor):
    """The markup of a section."""
    start = page.index(f'<section aria-labelledby="{anchor}">')
    return page[start : page.index("</section>", start)]


def subject_of(output, baseline="single"):
    (group,) = select(collect(output, pytest.fail), [], baseline)
    return Subject(group, "g1", ())


@pytest.fixture(scope="module")
def whole(whole_page):
    return whole_page.read_text(encoding="utf-8")


def test_every_section_is_there_and_in_order(whole):
    headings = re.findall(r'<h3 id="g1-[^>]*>([^<]*)</h3>', whole)
    assert headings == [
        "What was compared",
        "Results",
        "Is it chance?",
        "Stage by stage",
        "New, returning and dormant users",
        "Where methods differ",
        "Forgetting",
        "Strength of the regularizer",
        "Training",
        "Cost",
        "Drift",
        "Sample recommendations",
        "Commands and lineage",
    ]
    first = whole[: whole.index('<h2 id="g2">')]
    assert 'class="lead nothing"' not in first
    assert first.count("<svg ") == 6
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", whole)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_links_lead_somewhere(whole):
    elements = Reader(whole).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    values = [(key, value or "") for _, attributes in elements for key, value in attributes.items()]
    inside = [value[1:] for key, value in values if key == "href" and value.startswith("#")]
    inside += [name for _, value in values for name in re.findall(r"url\(#([^)]*)\)", value)]
    inside += [name for key, value in values if key == "aria-labelledby" for name in value.split()]
    assert inside
    assert set(inside) <= set(ids)


def test_nothing_leads_outside(whole):
    for name, attributes in Reader(whole).elements:
        assert name not in ("script", "iframe", "object", "embed", "base", "form")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "data", "action", "xlink:href", "srcset"):
                assert value.startswith(("#", "data:"))
            assert not re.search(r"url\((?!#)", value or "")
    style = whole[whole.index("<style>") : whole.index("</style>")]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in whole.replace("&#x27;", "'")


def test_hostile_titles_and_names_are_shown_as_texts(whole):
    text = Reader(whole).text
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in text
    assert "red link" in text
    assert "abc \u05e9\u05dc\u05d5\u05dd &amp; \"'" in text
    assert "peso (regularizer.strength=20)" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", whole)
    assert len(whole) < 900_000


def test_charts_are_named_for_those_who_cannot_see_them(whole):
    for chart in re.findall(r"<svg .*?</svg>", whole, flags=re.DOTALL):
        assert chart.startswith('<svg role="img" aria-labelledby=')
        title, told = re.findall(r"<(?:title|desc) id=[^>]*>([^<]+)</(?:title|desc)>", chart)
        assert title
        assert told


def test_results_are_those_of_the_table_with_the_commands_behind_them(whole):
    results = section_of(whole, "g1-results")
    assert "<strong>0.2900</strong>" in results
    assert "<u>0.2700</u>" in results
    assert "peso tables main" in results
    lineage = section_of(whole, "g1-lineage")
    assert "peso train stage=3 method=peso dataset=released" in lineage
    assert "c0ffeec0ffee" in lineage
    assert "torch 2.9" in lineage


def test_differences_show_whose_hits_are_shared_and_who_is_served_worst(whole):
    section = section_of(whole, "g1-differences")
    assert "peso analyse" in section
    assert "overlap of hits, recall@10" in section
    assert "worst group recall@10" in section
    assert "<summary>Stage by stage</summary>" in section


def test_overlap_is_shown_without_the_data(tmp_path):
    section = differences.build(subject_of(runs(tmp_path / "runs")))
    assert "Fairness is left out: dataset.path=nowhere: no such folder" in section.lead
    assert "overlap of hits" in section.parts[0].markup


def test_samples_show_hits_and_misses_of_the_same_users(whole):
    samples = section_of(whole, "g1-samples")
    assert re.findall(r"<h4><bdi>(\w+)</bdi>", samples) == ["user0", "user1", "user2"]
    assert len(re.findall("<mark>", samples)) == 4
    assert samples.count("<td>missed</td>") == 5


def test_equal_runs_give_equal_bytes(whole_page, whole_runs, tmp_path):
    report(whole_runs, [], tmp_path / "page.html", "single", False)
    assert (tmp_path / "page.html").read_bytes() == whole_page.read_bytes()


def test_data_that_cannot_be_opened_are_done_without(tmp_path):
    subject = subject_of(runs(tmp_path / "runs"))
    section = drift.build(subject)
    assert section.parts == ()
    assert "is left out, for they can't be opened: " in section.lead
    assert section.commands == ("peso data drift dataset=released dataset.name=shop dataset.path=nowhere",)
    section = samples.build(subject)
    assert "Items go by their ids, for the dataset can't be opened: " in section.lead
    assert "<bdi>item1</bdi>" in section.parts[0].markup


def test_data_that_have_changed_since_are_done_without(tmp_path):
    data = released(tmp_path / "data", {item: f"Title of {item}" for item in ITEMS})
    runs(tmp_path / "runs", data)
    assert drift.build(subject_of(tmp_path / "runs")).parts
    block = data / "shop.all.block_2.json"
    block.write_text(block.read_text().replace("item9", "item8"))
    subject = subject_of(tmp_path / "runs")
    assert "the data of shop are no longer those on which" in drift.build(subject).lead
    assert "Title of" not in "".join(part.markup for part in samples.build(subject).parts)


@pytest.mark.parametrize(
    ("room", "needs", "command"),
    [
        (significance, "This needs a --baseline and another method", "peso train stage=2 method=peso"),
        (forgetting, "This needs models that were scored on the test users of stages", "peso evaluate stage="),
        (strength, "This needs one method with several strengths", "peso train stage=2 method=peso"),
        (training, "This needs a method that trained beyond stage 1", "peso train stage=2 method=peso"),
    ],
)
def test_a_section_with_nothing_to_show_says_what_it_needs_and_how_to_get_it(tmp_path, room, needs, command):
    folder = made(tmp_path, "single", 2)
    predictions(folder, 2, (1, 2, 3))
    (folder / "log.jsonl").write_text('{"event": "result", "stage": 2}\n')
    section = room.build(subject_of(tmp_path))
    assert needs in section.lead
    assert section.parts == ()
    assert any(line.startswith(command) for line in section.commands)


def test_what_is_damaged_is_said_in_its_section_and_the_rest_is_shown(whole):
    for anchor, why in (("training", "log.jsonl: no such file"), ("samples", "predictions.parquet: can't be read")):
        section = section_of(whole, f"g2-{anchor}")
        assert "This can't be shown" in section
        assert why in section
    assert "0.1000" in section_of(whole, "g2-results")


@pytest.mark.parametrize(
    ("baseline", "command"),
    [
        ("single", "peso train stage=2 method=single"),
        ("peso", "peso train stage=2 method=single"),
        ("", "peso report --baseline peso"),
    ],
)
def test_a_baseline_that_is_missing_has_its_command(tmp_path, baseline, command):
    predictions(made(tmp_path, "peso", 2), 2, (1, 2, 3))
    (found,) = significance.build(subject_of(tmp_path, baseline)).commands
    assert found.startswith(command)


def test_a_baseline_of_several_rows_is_to_be_chosen(tmp_path):
    subject = subject_of(runs(tmp_path), "peso")
    assert significance.build(subject).commands == (
        "peso report --baseline 'peso (regularizer.strength=20)'",
        "peso report --baseline 'peso (regularizer.strength=3000)'",
    )


def test_significance_is_said_in_a_sentence(tmp_path):
    users = [f"user{number}" for number in range(40)]
    for method, rank in (("single", None), ("peso", 1), ("l2", None)):
        predictions(made(tmp_path, method, 2), 2, [rank] * 40, users)
    said = significance.build(subject_of(tmp_path)).lead
    assert "By recall@10, peso lies above single by more than chance explains" in said
    assert "the other method can't be told apart from it" in said
    assert "With a single seed this says nothing of how another seed would turn out." in said


def test_groups_of_runs_have_anchors_of_their_own(whole):
    assert whole.count('id="g1-results"') == whole.count('id="g2-results"') == 1
    assert re.findall(r"<h2[^>]*><bdi>([^<]*)", whole) == ["shop, tiny", "synthetic, tiny"]


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    made(tmp_path, "peso")
    made(tmp_path, "single", beams=50)
    (group,) = select(collect(tmp_path, pytest.fail), [], "single", mix=True)
    section = summary.build(Subject(group, "g1", ()))
    assert section.lead.startswith("Not all of this can be compared: ")
    assert "differ in decoding.beams" in section.lead
