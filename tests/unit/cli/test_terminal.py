"""What people read in the terminal: durations, tables of models, plans and the funnel, and text of others."""

import io

import pytest
from rich.console import Console

from imgdiffd.bundles.bundle import Model
from imgdiffd.cli.terminal import duration, funnel_table, models_table, plain, plan_table
from imgdiffd.errors import visible
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.placement import Footprint, Placement, Plan
from imgdiffd.schedulers.reasons import PlacementCode, Reason
from imgdiffd.status import Funnel, FunnelStep


def test_durations_are_readable_at_every_scale() -> None:
    assert [duration(value) for value in (None, 0, 65, 3_661, 200_000)] == [
        "–",
        "00:00",
        "01:05",
        "01:01:01",
        "2 d 07:33",
    ]


def test_the_funnel_names_each_loss_with_its_reason() -> None:
    output = io.StringIO()
    funnel = Funnel(
        steps=(
            FunnelStep(name="captions", count=10),
            FunnelStep(name="rewritten", count=7, base=10, lost={"unchanged": 1, "refusal": 1}, waiting=1),
        ),
        ends=(FunnelStep(name="captions waiting", count=8, base=10),),
    )
    Console(file=output, width=120).print(funnel_table(funnel))
    assert "unchanged 1, refusal 1" in output.getvalue()
    assert "70%" in output.getvalue()
    assert "captions waiting      8    80%" in output.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_the_funnel_cuts_no_reason_on_a_narrow_screen(width: int) -> None:
    lost = {f"a_reason_with_a_rather_long_name_{number}": 12_000 for number in range(4)}
    funnel = Funnel(steps=(FunnelStep(name="captions", count=99_000), FunnelStep(name="kept", count=51_000, lost=lost)))
    output = io.StringIO()
    Console(file=output, width=width).print(funnel_table(funnel))
    shown = "".join(output.getvalue().split())
    assert "…" not in shown
    assert all(f"{reason}12000" in shown for reason in lost)


def test_a_plan_shows_devices_models_and_what_has_no_place() -> None:
    taken = {role: Footprint(role, 2_000_000_000, 500_000_000) for role in Role}
    first, second = (Reason(PlacementCode.NEEDED, text) for text in ("first", "second"))
    placements = (
        Placement("cuda:0", (Role.CLIP, Role.BLIP), (first, second), 4_500_000_000, 5_500_000_000),
        Placement("cuda:1", (), (), 0, 1_000_000_000),
    )
    left_out = ((Role.ERASER, Reason(PlacementCode.NO_ROOM, "no room: its weights take 5.1 GB")),)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan_table(Plan(placements, left_out), taken))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]
    assert lines[2:] == [
        "cuda:0 clip 2.00 0.50 first",
        "blip 2.00 0.50 second",
        "4.5 of 10.0 all weights and the largest peak",
        "cuda:1 0.0 of 1.0 all weights and the largest peak",
        "none eraser no room: its weights take 5.1 GB",
    ]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain [bold]text[/] :cat:", "plain [bold]text[/] :cat:"),
        ("\x1b[2J\x07two\nlines", r"\x1b[2J\x07two\nlines"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("Bäume, 木", "Bäume, 木"),
        ("\u3164.txt", r"\u3164.txt"),
    ],
)
def test_text_of_others_is_shown_as_it_is_and_does_nothing(text: str, seen: str) -> None:
    assert visible(text) == seen
    console = Console(width=120, record=True, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(plain(text))
    assert console.file.getvalue() == f"{seen}\n"  # type: ignore[attr-defined]


def test_markup_in_a_bundle_or_a_plan_does_nothing() -> None:
    nasty = "[/] [red]x[/]\x1b[2J"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(models_table([(Role.CLIP, Model(source=nasty, licence=nasty), True)]))
    placement = Placement(nasty, (Role.CLIP,), (Reason(PlacementCode.NEEDED, nasty),), 1, 1)
    left_out = ((Role.ERASER, Reason(PlacementCode.NO_ROOM, nasty)),)
    console.print(plan_table(Plan((placement,), left_out), {Role.CLIP: Footprint(Role.CLIP, 1, 1)}))
    assert console.export_text().count(r"[/] [red]x[/]\x1b[2J") == 5
