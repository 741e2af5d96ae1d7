"""Checks that a bundle has a model for every role that a profile needs."""

from collections.abc import Collection

from imgdiffd.bundles.bundle import Bundle
from imgdiffd.errors import ConfigurationError
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_ROLES, STAGES, Role


def optional_roles(profile: Profile) -> frozenset[Role]:
    """The roles among OPTIONAL_ROLES that this profile needs."""
    entered = set(CAPTION_STAGES) - profile.skipped_stages
    return frozenset[Role]().union(*(STAGES[stage].roles for stage in entered)) & OPTIONAL_ROLES


def check_agreement(profile: Profile, bundle: Bundle, held: Collection[str] | None = None) -> None:
    """Raises ConfigurationError, naming both, where the profile needs a role that the bundle lacks.

    With `held`, the roles that the devices hold, also where no device holds that role.
    """
    without = "or set natural.enabled = false in the profile"  # the judge is the only optional role of a profile
    for role in sorted(optional_roles(profile)):
        if role not in bundle.roles:
            message = f"profile {profile.name} needs a {role}, bundle {bundle.name} has none"
            raise ConfigurationError(message, hint=f"add [{role}] to {bundle.path}, {without}")
        if held is not None and role not in held:
            message = f"profile {profile.name} needs the {role} of bundle {bundle.name}, but no device has room for it"
            raise ConfigurationError(message, hint=f"name a smaller {role} in {bundle.path}, add a device, {without}")
