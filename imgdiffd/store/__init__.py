"""All SQL of the project: one database with one writer and a few read connections."""

from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.reader import Reader
from imgdiffd.store.rows import (
    BundleRow,
    FunnelCounts,
    JobRow,
    MadeRow,
    ModelRow,
    Overview,
    Progress,
    ProgressOf,
    Queue,
    Recorded,
    Timing,
)
from imgdiffd.store.scores import ItemMark, ScoredItem, ScoredRegion
from imgdiffd.store.store import Store
from imgdiffd.store.stories import (
    CandidateRow,
    ErasureRow,
    ItemStory,
    PairRow,
    RegionRow,
    RejectedRow,
    RemovalRow,
    RemovalSampleRow,
    RemovalStory,
    RewriteRow,
    SampleRow,
)

__all__ = [
    "BundleRow",
    "CandidateRow",
    "ErasureRow",
    "FunnelCounts",
    "ItemMark",
    "ItemStory",
    "JobRow",
    "MadeRow",
    "ModelRow",
    "Overview",
    "PairRow",
    "PreviewsRow",
    "Progress",
    "ProgressOf",
    "Queue",
    "Reader",
    "Recorded",
    "RegionRow",
    "RejectedRow",
    "RemovalRow",
    "RemovalSampleRow",
    "RemovalStory",
    "RewriteRow",
    "SampleRow",
    "ScoredItem",
    "ScoredRegion",
    "Store",
    "Timing",
]
