"""Which cards the configured devices mean, on machines made up."""

import sys

import pytest

from imgdiffd.errors import SettingsError
from imgdiffd.fleet.cards import resolve_devices
from tests.fakes.nvml import FakeCard, FakeDriver, four_cards

INSTANCES = [FakeCard("MIG-11", "A100 3g.40gb"), None, FakeCard("MIG-12", "A100 3g.40gb")]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    made = four_cards()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def visible(value: str | None, devices: str = "auto") -> list[str]:
    """The UUIDs of cuda:0, cuda:1, … where CUDA_VISIBLE_DEVICES has `value`."""
    found = resolve_devices([devices], {} if value is None else {"CUDA_VISIBLE_DEVICES": value}).places
    assert list(found) == [f"cuda:{number}" for number in range(len(found))]
    return list(found.values())


def test_auto_is_every_card_in_the_order_of_the_bus(driver: FakeDriver) -> None:
    assert visible(None) == ["GPU-aa", "GPU-ab", "GPU-ba", "GPU-bb"]
    assert driver.opened == 0, "NVML is closed again"


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("2,0", ["GPU-ba", "GPU-aa"]),
        (" 3 , 1 ", ["GPU-bb", "GPU-ab"]),
        ("1gpu,2ampere", ["GPU-ab", "GPU-ba"]),
        ("GPU-bb,GPU-aa", ["GPU-bb", "GPU-aa"]),
        ("GPU-ab,2", ["GPU-ab", "GPU-ba"]),
        ("1,-1,2", ["GPU-ab"]),
        ("1,7,2", ["GPU-ab"]),
        ("1,,2", ["GPU-ab"]),
        ("GPU-bb,GPU-a", ["GPU-bb"]),  # the beginning of two
        ("GPU-bb,GPU-zz,GPU-aa", ["GPU-bb"]),
        ("02,00", ["GPU-ba", "GPU-aa"]),
        ("0,\u0661", ["GPU-aa"]),  # a digit to Python alone
        (f"3,{'1' * 5000}", ["GPU-bb"]),
    ],
)
def test_cards_are_named_as_cuda_has_them_named(value: str, left: list[str]) -> None:
    assert visible(value) == left


def test_the_beginning_of_a_uuid_is_enough(driver: FakeDriver) -> None:
    driver.cards = [FakeCard("GPU-8932f937-d72c-4106"), FakeCard("GPU-8931")]
    assert visible("GPU-8932") == ["GPU-8932f937-d72c-4106"]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", r"\$CUDA_VISIBLE_DEVICES= leaves 0 of 4\)"),
        ("-1", "leaves 0 of 4, and ends at '-1', which names no card here"),
        ("NoDevFiles", "ends at 'NoDevFiles', which names no card here"),
        ("0,1,0", "leaves 0 of 4, since it names 0 twice"),
    ],
)
def test_where_every_card_is_hidden_auto_says_by_what(value: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f'devices = "auto": no NVIDIA card was found .*{why}'):
        visible(value)


def test_auto_never_silently_means_the_cpu(driver: FakeDriver) -> None:
    driver.cards = []
    with pytest.raises(SettingsError) as refused:
        visible(None)
    assert refused.value.message == 'devices = "auto": no NVIDIA card was found'
    driver.loaded = False
    with pytest.raises(SettingsError, match='devices = "auto": the NVIDIA driver does not answer: Driver Not Loaded'):
        visible(None)


def test_each_mig_instance_is_a_device_of_its_own(driver: FakeDriver) -> None:
    driver.cards[1].instances = INSTANCES
    assert visible(None) == ["GPU-aa", "MIG-11", "MIG-12", "GPU-ba", "GPU-bb"]
    assert visible("MIG-12,MIG-11") == ["MIG-12", "MIG-11"]
    assert visible("1") == visible("GPU-ab") == ["MIG-11", "MIG-12"]
    assert visible("0,MIG-1") == ["GPU-aa"], "the beginning of two"
    found = resolve_devices(["auto"], {"CUDA_VISIBLE_DEVICES": "0,1"}).text
    assert found == (
        "cuda:0 (NVIDIA A100-SXM4-80GB), cuda:1, cuda:2 (A100 3g.40gb); $CUDA_VISIBLE_DEVICES=0,1 leaves 3 of 5"
    )


def test_a_divided_card_without_instances_is_no_device_and_told(driver: FakeDriver) -> None:
    driver.cards[0].instances = [None, None]
    found = resolve_devices(["auto"], {})
    assert list(found.places.values()) == ["GPU-ab", "GPU-ba", "GPU-bb"]
    assert found.text.endswith("; card 0 has MIG enabled, but no instance")


def test_a_lost_card_is_told_and_costs_no_other(driver: FakeDriver) -> None:
    driver.cards[1].lost = True
    found = resolve_devices(["auto"], {})
    assert list(found.places.values()) == ["GPU-aa", "GPU-ba", "GPU-bb"]
    assert found.text.endswith("; card 1 does not answer: GPU is lost")
    assert visible("0,2") == ["GPU-aa", "GPU-ba"], "indices are the driver's"


@pytest.mark.usefixtures("driver")
def test_a_named_card_means_the_visible_one_of_that_number() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "3,1"}
    assert resolve_devices(["cuda:1", "cpu"], environ).places == {"cuda:1": "GPU-ab", "cpu": "cpu"}
    assert resolve_devices(["cpu", "cuda:0", "cpu"], environ).places == {
        "cpu#0": "cpu", "cuda:0": "GPU-bb", "cpu#2": "cpu",
    }  # fmt: skip
    assert resolve_devices(["cuda:1", "cpu"], environ).text == (
        "cuda:1 (NVIDIA A100-SXM4-80GB), cpu; $CUDA_VISIBLE_DEVICES=3,1 leaves 2 of 4"
    )


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("device", "value", "why"),
    [
        ("cuda:4", None, "there is only cuda:0, cuda:1, cuda:2, cuda:3"),
        ("cuda:2", "3,1", "there is only cuda:0, cuda:1 ($CUDA_VISIBLE_DEVICES=3,1 leaves 2 of 4)"),
        ("cuda:0", "", "no NVIDIA card was found ($CUDA_VISIBLE_DEVICES= leaves 0 of 4)"),
    ],
)
def test_a_named_card_that_is_not_visible_is_refused(device: str, value: str | None, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        visible(value, device)
    assert refused.value.message == f"{device}: {why}"
    assert refused.value.hint


def test_cpus_alone_ask_no_driver(driver: FakeDriver) -> None:
    driver.loaded = False
    assert resolve_devices(["cpu"], {}).places == {"cpu": "cpu"}
    assert resolve_devices(["cpu", "cpu"], {}).places == {"cpu#0": "cpu", "cpu#1": "cpu"}
    with pytest.raises(SettingsError, match="cuda:0: the NVIDIA driver does not answer"):
        resolve_devices(["cpu", "cuda:0"], {})
