"""The laws of sharing out the last tasks of their kind."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.schedulers.sharing import DeviceLoad, share


def test_equal_idle_devices_get_equal_parts() -> None:
    others = [DeviceLoad(0.0, 8.0)] * 3
    assert [share(count, DeviceLoad(0.0, 8.0), others) for count in (1, 3, 4, 5, 8)] == [1, 1, 1, 2, 2]


def test_a_slow_device_gets_a_smaller_part() -> None:
    assert share(4, DeviceLoad(0.0, 13.0), [DeviceLoad(0.0, 8.0)]) == 1
    assert share(4, DeviceLoad(0.0, 40.0), [DeviceLoad(0.0, 8.0)]) == 0


def test_device_that_is_busy_for_long_has_no_part() -> None:
    assert share(4, DeviceLoad(0.0, 8.0), [DeviceLoad(100.0, 8.0)]) == 4
    assert share(4, DeviceLoad(100.0, 8.0), [DeviceLoad(0.0, 8.0)]) == 0


loads = st.builds(DeviceLoad, st.floats(0, 50), st.floats(0.1, 20))


@given(st.integers(1, 6), loads, st.lists(loads, min_size=1, max_size=2))
def test_no_other_split_ends_sooner(count: int, mine: DeviceLoad, others: list[DeviceLoad]) -> None:
    def end_s(parts: tuple[int, ...]) -> float:
        used = [load.free_in_s + part * load.item_s for load, part in zip((mine, *others), parts, strict=True) if part]
        return max(used)

    splits = [parts for parts in product(range(count + 1), repeat=1 + len(others)) if sum(parts) == count]
    best_s = min(map(end_s, splits))
    taken = share(count, mine, others)
    assert min(end_s(parts) for parts in splits if parts[0] == taken) <= best_s + 1e-9
