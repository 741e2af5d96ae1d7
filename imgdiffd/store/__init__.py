"""All SQL of the project: one database with one writer and a few read connections."""

from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.reader import Reader
from imgdiffd.store.rows import (
    BundleRow,
    CandidateRow,
    ErasureRow,
    FunnelCounts,
    ItemStory,
    JobRow,
    MadeRow,
    ModelRow,
    Overview,
    PairRow,
    Progress,
    ProgressOf,
    Queue,
    Recorded,
    RegionRow,
    RemovalRow,
    RemovalSampleRow,
    RemovalStory,
    RewriteRow,
    SampleRow,
    Timing,
)
from imgdiffd.store.scores import ItemMark, ScoredItem, ScoredRegion
from imgdiffd.store.store import Store

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
