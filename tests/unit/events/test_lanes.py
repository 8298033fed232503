"""Lanes: the same partition as Java's default partitioner gives, and the keys that name no model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.events.exceptions import WrongKey
from ai_infra.events.lanes import check_model, is_model, lane_key, lane_of, lane_of_lane_key, murmur2

# Computed with org.apache.kafka.common.utils.Utils (kafka-clients 4.1.0): key, murmur2 unsigned, lane of 8, lane of 12.
JAVA = [
    ("", 275646681, 1, 9),
    ("a", 2731586172, 4, 4),
    ("ab", 316155434, 2, 2),
    ("abc", 479470107, 3, 3),
    ("abcd", 2971317748, 4, 8),
    ("abcde", 461995741, 5, 1),
    ("21", 3321034988, 4, 0),
    ("foobar", 3504634814, 6, 6),
    ("a-little-bit-long-string", 3308985760, 0, 8),
    ("a-little-bit-longer-string", 2808662467, 3, 11),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 4236069325, 5, 5),
    ("digits", 690258031, 7, 7),
    ("fraud.v2", 3385463187, 3, 7),
    ("_lane/0", 1078337373, 5, 9),
    ("größe", 588164084, 4, 8),
    ("模型", 3186242996, 4, 0),
    ("model-0", 765073626, 2, 6),
    ("model-1", 2210534192, 0, 0),
    ("A" + "z" * 127, 2255128736, 0, 0),
]


@pytest.mark.parametrize(("key", "hashed", "of_8", "of_12"), JAVA)
def test_murmur2_and_lane_equal_what_java_computes(key: str, hashed: int, of_8: int, of_12: int) -> None:
    assert murmur2(key.encode()) == hashed
    assert (lane_of(key, 8), lane_of(key, 12)) == (of_8, of_12)


@given(st.text(), st.integers(1, 4096))
def test_a_lane_is_always_one_of_the_lanes(key: str, lanes: int) -> None:
    assert 0 <= lane_of(key.encode("utf-8", "replace").decode(), lanes) < lanes


@given(st.integers(0, 999_999))
def test_a_lane_key_names_its_lane_and_is_never_a_model(lane: int) -> None:
    assert lane_of_lane_key(lane_key(lane)) == lane
    assert not is_model(lane_key(lane))


@pytest.mark.parametrize(
    "key", ["_lane/", "_lane/01", "_lane/-1", "_lane/1 ", "lane/1", "_lane/1\n", "_broadcast", "digits"]
)
def test_other_keys_name_no_lane(key: str) -> None:
    assert lane_of_lane_key(key) is None


@pytest.mark.parametrize("name", ["digits", "9", "Fraud.v2", "a_b-c", "x" * 128])
def test_ordinary_names_are_models(name: str) -> None:
    assert check_model(name) == name


@pytest.mark.parametrize("name", ["", "_x", ".x", "-x", "a b", "a/b", "größe", "x" * 129, "a\n", "_broadcast"])
def test_other_names_are_no_models(name: str) -> None:
    with pytest.raises(WrongKey):
        check_model(name)
