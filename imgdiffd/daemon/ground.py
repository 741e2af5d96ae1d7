"""What the checks before a start look at, what they find out, and how they say it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imgdiffd.bundles.bundle import Bundle
from imgdiffd.errors import ImgdiffdError
from imgdiffd.fleet.planner import Planner
from imgdiffd.method.profile import Profile
from imgdiffd.schedulers.placement import Plan
from imgdiffd.settings import Settings
from imgdiffd.store.connection import holder_of

State = Literal["ok", "warning", "refused", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says. `error` is what `serve` raises; only the state "refused" has one."""

    check: str
    state: State
    text: str
    hint: str = ""
    error: ImgdiffdError | None = None


@dataclass
class Ground:
    """The settings, and what the checks find out on their way, for the checks after them and for `serve`.

    With `starting`, a daemon is about to start: it waits a while for memory, and a daemon that runs already is in its
    way. Without `models`, fake workers load none.
    """

    settings: Settings
    file: Path | None = None
    starting: bool = False
    models: bool = True
    bundle: Bundle | None = None
    profile: Profile | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    folders: Collection[Path] = ()
    planner: Planner | None = None
    plan: Plan | None = None

    def beside_a_daemon(self) -> bool:
        """Whether a daemon runs on this state folder and this only looks at what the next one would find."""
        return not self.starting and holder_of(self.settings.database) is not None


class Caution(Exception):
    """Something that the daemon can work with, but that somebody should know."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text, hint)
