import pytest
from raw_files import json_lines, open_files, places, read, write

from peso_cli.errors import InputError


def refusal(source, interactions, items=(), **settings):
    with pytest.raises(InputError) as caught:
        open_files(source, interactions, items, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Amazon

REVIEW = {
    "rating": 5.0,
    "title": "Great",
    "images": [],
    "parent_asin": "B1",
    "user_id": "A1",
    "timestamp": 1588687728923,
}


@pytest.mark.parametrize("name", ["Games.jsonl", "Games.jsonl.gz"])
def test_amazon_2023_reviews_and_metadata(tmp_path, name):
    reviews = write(tmp_path / name, json_lines(REVIEW, {**REVIEW, "user_id": "A2", "rating": 3}))
    meta = write(
        tmp_path / "meta_Games.jsonl.gz",
        json_lines(
            {
                "parent_asin": "B1",
                "title": "Tea",
                "description": ["Green", "tea"],
                "store": "S",
                "categories": ["F", "T"],
            },
            {"parent_asin": "B2", "title": None, "description": [], "store": None, "categories": []},
            {"parent_asin": "B1", "title": "Other", "description": ["later"], "store": "S", "categories": []},
        ),
    )
    events, items = read("amazon_2023", [reviews], [meta])
    assert events == [("A1", "B1", "1588687728923", 5.0), ("A2", "B1", "1588687728923", 3.0)]
    assert items == [("B1", "Tea", "Green tea", "S", "F, T"), ("B2", None, None, None, None)]
    assert places("amazon_2023", [reviews]) == [f"{name}:1", f"{name}:2"]


def test_amazon_2023_benchmark_tables(tmp_path):
    train = write(
        tmp_path / "g.train.csv", "user_id,parent_asin,rating,timestamp,history\nA1,B2,4.0,1588687728923,B1 B3\n"
    )
    valid = write(tmp_path / "g.valid.csv.gz", "user_id,parent_asin,rating,timestamp\nA1,B4,,1588687728924\n")
    events, items = read("amazon_2023", [train, valid])
    assert events == [("A1", "B2", "1588687728923", 4.0), ("A1", "B4", "1588687728924", None)]
    assert items == []


def test_a_folder_of_amazon_tells_reviews_from_metadata(tmp_path):
    write(tmp_path / "Games.jsonl", json_lines(REVIEW))
    write(tmp_path / "meta_Games.jsonl", json_lines({"parent_asin": "B1", "title": "Tea"}))
    events, items = read("amazon_2023", [tmp_path], [tmp_path])
    assert len(events) == 1
    assert items == [("B1", "Tea", None, None, None)]


def test_amazon_2018_reviews_ratings_and_metadata(tmp_path):
    review = {"overall": 5.0, "reviewerID": "A1", "asin": "0123", "unixReviewTime": 1404000000, "style": {"x": "y"}}
    reviews = write(tmp_path / "Games_5.json.gz", json_lines(review))
    ratings = write(tmp_path / "Games.csv", "0123,A2,4.0,1404000001\n")
    meta = write(
        tmp_path / "meta_Games.json",
        json_lines(
            {"asin": "0123", "title": "Tea", "description": "one text", "brand": "S", "category": ["F", "T"]},
            {"asin": "0124", "title": "Cup", "description": ["two", "texts"], "brand": "", "category": [["a"], ["b"]]},
        ),
    )
    events, items = read("amazon_2018", [reviews, ratings], [meta])
    assert events == [("A1", "0123", "1404000000", 5.0), ("A2", "0123", "1404000001", 4.0)]
    assert items == [("0123", "Tea", "one text", "S", "F, T"), ("0124", "Cup", "two texts", None, "a, b")]


def test_reviews_of_the_other_year_are_refused(tmp_path):
    reviews = write(tmp_path / "Games.json", json_lines(REVIEW))
    message = refusal("amazon_2018", [reviews])
    assert "Games.json: no column 'reviewerID'" in message
    assert "it has rating, title, images, parent_asin" in message


# Yelp


def test_yelp(tmp_path):
    write(
        tmp_path / "yelp_academic_dataset_review.json",
        json_lines({"user_id": "u", "business_id": "b", "stars": 4.0, "date": "2018-07-07 22:09:11", "text": "Nice."}),
    )
    write(
        tmp_path / "yelp_academic_dataset_business.json",
        json_lines(
            {"business_id": "b", "name": "Inn", "city": "Bern", "categories": "Bars, Food"},
            {"business_id": "c", "name": "Shop", "city": "", "categories": None},
        ),
    )
    events, items = read("yelp", [tmp_path], [tmp_path])
    assert events == [("u", "b", "2018-07-07 22:09:11", 4.0)]
    assert items == [("b", "Inn", "Bern", None, "Bars, Food"), ("c", "Shop", None, None, None)]


# MovieLens

EVENTS = [("1", "10", "978300760", 5.0), ("2", "20", "978300761", 3.5)]
CAFE = "Café, Le (1995)"


def test_movielens_100k_in_latin_1(tmp_path):
    write(tmp_path / "u.data", "1\t10\t5\t978300760\n2\t20\t3.5\t978300761\n")
    flags = {"Action": 1, "Comedy": 5}
    films = [
        "|".join(
            ["10", CAFE, "01-Jan-1995", "", "http://x", *("1" if n in flags.values() else "0" for n in range(19))]
        ),
        "|".join(["20", "unknown", "", "", "", "1", *["0"] * 18]),
    ]
    write(tmp_path / "u.item", "\n".join(films) + "\n", encoding="latin-1")
    write(tmp_path / "u.user", "1|24|M|technician|85711\n")
    events, items = read("movielens", [tmp_path], [tmp_path])
    assert events == EVENTS
    assert items == [("10", CAFE, None, None, "Action, Comedy"), ("20", "unknown", None, None, None)]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_1m_and_10m(tmp_path, encoding):
    write(tmp_path / "ratings.dat", "1::10::5::978300760\n2::20::3.5::978300761\n3::30\n")
    write(tmp_path / "movies.dat", f"10::{CAFE}::Action|Comedy\r\n20::Other::(no genres listed)\n", encoding=encoding)
    events, items = read("movielens", [tmp_path], [tmp_path])
    assert events == [*EVENTS, (None, None, None, None)]
    assert items == [("10", CAFE, None, None, "Action, Comedy"), ("20", "Other", None, None, None)]
    assert places("movielens", [tmp_path / "ratings.dat"])[-1] == "ratings.dat:3"


def test_movielens_20m_25m_and_32m(tmp_path):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,10,5,978300760\n2,20,3.5,978300761\n")
    write(tmp_path / "movies.csv", f'movieId,title,genres\n10,"{CAFE}",Action|Comedy\n20,"A ""B""",Sci-Fi\n')
    write(tmp_path / "links.csv", "movieId,imdbId,tmdbId\n10,1,2\n")
    events, items = read("movielens", [tmp_path], [tmp_path])
    assert events == EVENTS
    assert items == [("10", CAFE, None, None, "Action, Comedy"), ("20", 'A "B"', None, None, "Sci-Fi")]


def test_movielens_as_recbole_gives_it(tmp_path):
    write(
        tmp_path / "ml-100k.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t5\t978300760\n"
    )
    write(
        tmp_path / "ml-100k.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tToy Story\t1995\tAnimation Children's Comedy\n20\tunknown\t\tunknown\n",
    )
    events, items = read("movielens", [tmp_path], [tmp_path])
    assert events == EVENTS[:1]
    assert items == [
        ("10", "Toy Story", None, None, "Animation, Children's, Comedy"),
        ("20", "unknown", None, None, None),
    ]


def test_other_files_are_no_movielens(tmp_path):
    archive = write(tmp_path / "ml-1m.zip", b"PK")
    assert "give the unpacked folder" in refusal("movielens", [archive])
    assert "is called u.data or ratings.dat or ratings.csv or *.inter" in refusal("movielens", [tmp_path])


# RecBole


def test_recbole_without_ratings_and_with_quotes_in_texts(tmp_path):
    write(tmp_path / "a.inter", "item_id:token\tuser_id:token\ttimestamp:float\ni1\tu1\t5.0\ni2\tu1\t6.0\n")
    write(
        tmp_path / "a.item", 'item_id:token\ttitle:token_seq\tbrand:token\tcategories:token\ni1\t12" pipe\tB\tone two\n'
    )
    events, items = read("recbole", [tmp_path / "a.inter"], [tmp_path])
    assert events == [("u1", "i1", "5.0", None), ("u1", "i2", "6.0", None)]
    assert items == [("i1", '12" pipe', None, "B", "one two")]


def test_recbole_without_times_is_refused(tmp_path):
    inter = write(tmp_path / "a.inter", "item_id:token\tuser_id:token\ttimestep:float\ni1\tu1\t5.0\n")
    assert "no column 'timestamp' (did you mean timestep?)" in refusal("recbole", [inter])
