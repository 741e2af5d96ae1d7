"""What a profile asks of the rest: the stages that it leaves out, the optional roles that it needs, a bundle with them.

It owns that agreement between profile and bundle; it does not know what the stages compute or where models are loaded.
"""

from collections.abc import Collection

from imgdiffd.bundle import Bundle
from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_ROLES, OPTIONAL_STAGES, STAGES, Role, Stage
from imgdiffd.profile import Profile

_NONE = frozenset[Stage]()


def skipped_stages(profile: Profile) -> frozenset[Stage]:
    """The stages that no item of this profile enters."""
    return _NONE if profile.natural.enabled else OPTIONAL_STAGES  # vetting is the only one


def optional_roles(profile: Profile) -> frozenset[Role]:
    """Those of OPTIONAL_ROLES that the captions of this profile need."""
    entered = set(CAPTION_STAGES) - skipped_stages(profile)
    return frozenset[Role]().union(*(STAGES[stage].roles for stage in entered)) & OPTIONAL_ROLES


def check_agreement(profile: Profile, bundle: Bundle, held: Collection[str] | None = None) -> None:
    """Raises ConfigurationError, naming both, where the profile needs a role that the bundle lacks.

    With `held`, the roles that the devices hold, also where none of them holds it.
    """
    without = "or set natural.enabled = false in the profile"  # the judge is the only role that a profile may need
    for role in sorted(optional_roles(profile)):
        if role not in bundle.roles:
            message = f"profile {profile.name} needs a {role}, bundle {bundle.name} has none"
            raise ConfigurationError(message, hint=f"add [{role}] to {bundle.path}, {without}")
        if held is not None and role not in held:
            message = f"profile {profile.name} needs the {role} of bundle {bundle.name}, no device has room for it"
            raise ConfigurationError(message, hint=f"use a smaller one, add a device, {without}")
