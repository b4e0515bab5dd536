import yaml

from peso_cli.reports import published


def test_figures_are_those_of_the_paper(shared):
    paper = yaml.safe_load((shared / "paper/peso_tables.yaml").read_text())
    seen = 0
    for source in ("main", "groups", "two_tower"):
        table = paper[f"table_{source}"]
        for method, row in table["rows"].items():
            for column, value in zip(table["columns"], row, strict=True):
                dataset, _, metric = column.partition(".")
                if source == "groups":
                    dataset, metric = "instruments", f"{column}.ndcg@5"
                metric = metric.replace("hit@", "recall@") or "ndcg"
                assert published.figure(source, method, dataset, metric) == value
                seen += 1
    assert seen == 15 * 12 + 3 * 2 + 8 * 3
    gains = {method: row[-1] for method, row in paper["table_cumulative"]["rows"].items()}
    assert {m: published.figure("cumulative", m, "instruments", "natural") for m in gains} == gains
    assert published.published_methods("main") == tuple(paper["table_main"]["rows"])


def test_what_the_paper_does_not_have_is_none():
    assert published.figure("main", "replay", "books", "recall@5") is None
    assert published.figure("main", "peso", "games", "recall@5") is None
    assert published.figure("main", "peso", "books", "recall@1") is None
    assert published.published_name("amazon_games") is None


def test_names_of_datasets_lead_to_the_papers():
    assert published.published_name("amazon_instruments") == "instruments"
    assert published.published_datasets() == ("instruments", "movies", "books")


def test_regularizers_that_share_a_place_have_the_same():
    places = published.regularizer_places()
    assert places["softmax_kl"] < places["output_kl"] == places["rank_kl"] < places["l2"] < places["orthogonal"]


def test_the_dataset_table_is_the_papers(shared):
    table = yaml.safe_load((shared / "paper/peso_tables.yaml").read_text())["table_datasets"]
    columns, seen = table.pop("columns"), 0
    for dataset, stages in table.items():
        for stage, row in stages.items():
            figures = row if stage == "all" else dict(zip(columns, row, strict=True))
            for name, value in figures.items():
                assert published.dataset_figure(dataset, stage, name) == value
                seen += 1
    assert seen == 3 * (5 * 7 + 3)
    assert published.dataset_figure("books", "all", "sparsity") is None
    assert published.dataset_figure("books", "D6", "users") is None
