"""Safe YAML 1.2 reader, with the line of every mistake."""

import pytest

from separation.errors import UserError
from separation.files.yaml_reader import parse_yaml, read_yaml
from separation.files.yaml_writer import to_yaml


def value(text, **variables):
    return parse_yaml(text, file="f.yml", variables=variables).value


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
    ],
)
def test_scalars_follow_yaml_1_2(text, expected):
    found = value(f"a: {text}")["a"]
    assert found == expected and type(found) is type(expected)


def test_tuples_are_read_as_lists():
    assert value("a: !!python/tuple [x, [y], 1.0]") == {"a": ["x", ["y"], 1.0]}


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [ls]", "!!python/name:os.system ''", "!mine 3", "!!set {a}"]
)
def test_tags_that_build_objects_are_rejected_with_their_line(tag):
    with pytest.raises(UserError, match=r"^f\.yml:2: b: tag "):
        value(f"a: 1\nb: {tag}")


def test_anchors_and_merges_work():
    assert value("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}")["b"] == {"p": 1, "q": 3}


def test_variables_are_replaced_and_plain_scalars_keep_their_type():
    read = value("a: ${N:-4}\nb: '${N:-4}'\nc: ${DIR}/x\nd: ${EXPERIMENT_KEY}", DIR="/data")
    assert read == {"a": 4, "b": "4", "c": "/data/x", "d": "${EXPERIMENT_KEY}"}


def test_unset_variables_are_reported_in_one_line_with_their_name():
    with pytest.raises(UserError) as raised:
        value("x: 1\na:\n  b: ${NOWHERE}/c")
    assert str(raised.value).startswith("f.yml:3: a.b: ${NOWHERE} is not set")


@pytest.mark.parametrize(
    "text, line",
    [("a: [1, 2", 1), ("a: 1\nb: 2\n  c: 3", 3), ("a: 1\n\tb: 2", 2), ("a: 'x", 1), ("a: *nothing", 1)],
)
def test_invalid_yaml_is_reported_in_one_line(text, line):
    with pytest.raises(UserError) as raised:
        value(text)
    assert str(raised.value).startswith(f"f.yml:{line}: invalid YAML: ")
    assert "\n" not in str(raised.value)


def test_duplicate_keys_are_an_error():
    with pytest.raises(UserError, match=r"^f\.yml:3: a\.b: duplicate key"):
        value("a:\n  b: 1\n  b: 2")


def test_files_that_are_not_utf_8_are_reported_in_one_line(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UserError, match=r":2: expected UTF-8"):
        read_yaml(path)


def test_written_values_read_back_equal():
    written = {
        "a": 1e-05,
        "b": 1e22,
        "c": "1e-3",
        "d": "no",
        "e": None,
        "f": [True, ["x", 0.1]],
        "g": "ü: #",
        "h": "1:30",
    }
    assert value(to_yaml(written)) == written
