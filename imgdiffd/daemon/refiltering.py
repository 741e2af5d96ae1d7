"""Takes finished captions over to another profile, in the daemon or in its place."""

from imgdiffd.bundles.bundle import Bundle
from imgdiffd.store import BundleRow, ModelRow


def bundle_row(bundle: Bundle) -> BundleRow:
    """What a database records of the bundle that works on its jobs."""
    models = {role: bundle.model(role) for role in bundle.roles}
    digests = bundle.digests
    return BundleRow(
        bundle.name, {role: ModelRow(each.label, each.licence or "", digests[role]) for role, each in models.items()}
    )
