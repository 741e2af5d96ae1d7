"""Brings finished captions under another profile, in the daemon or, where none runs, in its place."""

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.errors import StoreError
from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline
from imgdiffd.settings import Settings
from imgdiffd.status import Refiltered, RefilteredJob
from imgdiffd.store import BundleRow, ModelRow, Store


def bundle_row(bundle: Bundle) -> BundleRow:
    """What a database records of the bundle that works on its jobs."""
    models = {role: bundle.model(role) for role in bundle.roles}
    digests = bundle.digests
    return BundleRow(
        bundle.name, {role: ModelRow(each.label, each.licence or "", digests[role]) for role, each in models.items()}
    )


async def refilter(store: Store, profile: Profile, job: int | None, *, paint: bool) -> Refiltered:
    """As `Store.refilter`, told as the API tells it."""
    plan, made = await store.refilter(profile, job, paint=paint)
    progress = await store.progress_of([new.id for _, new in made])
    return Refiltered(
        captions=plan.captions,
        sampled=plan.ended[ItemState.SAMPLED],
        rejected=plan.ended[ItemState.REJECTED],
        waiting=dict(plan.waiting),
        painted=plan.paints.total(),
        paint_s=plan.paint_s,
        jobs=tuple(
            RefilteredJob(
                job=new.id,
                of=old.id,
                name=new.name,
                captions=new.total,
                samples=progress[new.id][Pipeline.REPLACEMENT].samples,
            )
            for old, new in made
        ),
    )


async def refilter_without_daemon(settings: Settings, profile: Profile, job: int | None, *, paint: bool) -> Refiltered:
    """`refilter` on the database itself, whose lock is held meanwhile; what waits is for the next daemon.

    Raises StoreError where a daemon has the database or there is none, ConfigurationError where the settings' bundle
    does not fit the profile.
    """
    if not settings.database.exists():
        raise StoreError(f"{settings.database}: no such database", hint="start the daemon once: `imgdiffd serve`")
    bundle = load_bundle(settings.bundle)
    check_agreement(profile, bundle)
    async with Store.open(
        settings.database,
        removal=settings.removal and bundle.eraser is not None,
        bundle=bundle.painting,
        models=bundle_row(bundle),
        images=settings.images,
    ) as store:
        await store.drop_unread_jobs()  # a daemon or a refilter that was killed may have left some
        return await refilter(store, profile, job, paint=paint)
