import json

import pytest

from peso_cli.data.reading import read_object
from peso_cli.errors import InputError


def refusal(path, hook=None):
    """The message with which a file is refused."""
    with pytest.raises(InputError) as caught:
        read_object(path, hook)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.fixture
def file(tmp_path):
    """Write text or bytes to a file and return its path."""

    def write(content):
        path = tmp_path / "x.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_an_object_is_read_in_the_order_of_its_keys(file):
    value = {"b": [1, {"c": None}], "a": "ü ☃ 𝄞"}
    assert list(read_object(file(json.dumps(value))).items()) == list(value.items())
    assert read_object(file(json.dumps(value, ensure_ascii=False))) == value


def test_a_hook_makes_what_it_likes_of_every_object(file):
    path = file('{"u": {"a": 1, "b": 2}, "v": {}}')
    assert read_object(path, lambda pairs: {k.upper(): v for k, v in pairs}) == {"U": {"A": 1, "B": 2}, "V": {}}


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.json") == ": no such file"


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    assert "can't be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ":1:1: "),
        ("\n\n  nonsense", ":3:3: "),
        ('{"a": 1,\n "b" 2}', ":2:6: "),
        ('{"a": 1} {}', ":1:10: "),
        ('{"a": [1, 2', ":1:12: "),
        ('{"a": "tab\there"}', ":1:11: "),
        ("\ufeff{}", ":1:1: "),
    ],
)
def test_broken_json_is_placed_by_line_and_column(file, text, place):
    message = refusal(file(text))
    assert message.startswith(place)
    assert "not valid JSON" in message


@pytest.mark.parametrize("cut", [1, 5, 17, 40, 61])
def test_json_cut_off_anywhere_is_refused(file, cut):
    whole = json.dumps({"u1": {"previous_block": [], "current_block": ["1", "22", "3"]}})
    assert len(whole) > 61
    assert "not valid JSON" in refusal(file(whole[:cut]))


@pytest.mark.parametrize("before", [0, 100, 100_000])
def test_bytes_that_are_not_utf8_are_placed(file, before):
    assert refusal(file(b'{"' + b"a" * before + b'\xe9": 1}')) == f": not UTF-8 text at byte {before + 2}"


@pytest.mark.parametrize("text", ["[]", '"a"', "3", "null"])
def test_anything_but_an_object_is_refused(file, text):
    assert f"holds a {type(json.loads(text)).__name__} where one JSON object is needed" in refusal(file(text))


@pytest.mark.parametrize("text", ['{"k": 1, "l": 2, "k": 1}', '{"u": {"k": 1, "k": 2}}', '{"u": [{"k": 1, "k": 1}]}'])
def test_a_key_that_occurs_twice_is_named_at_any_depth(file, text):
    assert "key 'k' occurs twice" in refusal(file(text))
    assert "key 'k' occurs twice" in refusal(file(text), dict)


def test_the_same_key_in_two_objects_is_fine(file):
    assert read_object(file('{"u": {"k": 1}, "v": {"k": 1}}')) == {"u": {"k": 1}, "v": {"k": 1}}


def test_absurd_nesting_is_refused(file):
    assert "nested too deeply" in refusal(file('{"a":' + "[" * 200_000))


def test_a_number_of_thousands_of_digits_is_refused(file):
    assert "number of too many digits" in refusal(file('{"a": ' + "9" * 5000 + "}"))


def test_half_a_surrogate_pair_in_an_id_is_refused(file):
    assert "behind 'user'" in refusal(file('{"user\\ud800x": 1}'))
    assert read_object(file('{"user\\ud834\\udd1e": 1}')) == {"user𝄞": 1}
