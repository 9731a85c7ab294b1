from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from broker.machines.lane import Lane, lane_from


@given(
    st.lists(st.sampled_from(["new", "take", "take", "return", "restore"]), max_size=60),
    st.sampled_from([1, 700]),
)
def test_the_lowest_comes_first_however_often_it_went(steps: list[str], times: int) -> None:
    """times: so many new messages and takes at once that the lane gets compacted."""
    lane, inside, outside = Lane(), list[int](), list[int]()
    newest = 0
    for step in steps:
        if step == "new":
            for _ in range(2 * times):
                newest += 3
                lane.ids.append(newest)
                inside.append(newest)
        elif step == "take":
            for _ in range(min(times, len(inside))):
                taken = lane.take()
                assert taken == min(inside)
                inside.remove(taken)
                outside.append(taken)
        elif step == "return" and outside:
            back = outside.pop(len(outside) // 2)
            lane.put_back(back)
            inside.append(back)
        else:
            lane = lane_from(lane.packed(), sorted(lane.returned))
        assert len(lane) == len(inside)
    assert sorted(lane) == sorted(inside)
    assert all(lane.holds_new(id) or id in lane.returned for id in inside)
    assert not any(lane.holds_new(id) or id in lane.returned for id in outside)


def test_a_million_messages_take_about_eight_bytes_each() -> None:
    lane = Lane()
    for id in range(1_000_000):
        lane.ids.append(id << 20)
    assert sys.getsizeof(lane.ids) < 9_500_000


def test_what_is_taken_gives_its_memory_back() -> None:
    lane = Lane()
    lane.ids.extend(range(100_000))
    for _ in range(90_000):
        lane.take()
    assert sys.getsizeof(lane.ids) < 8 * 30_000
