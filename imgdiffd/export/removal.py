"""Object removal in the format in which Img-Diff was published; the record itself is `method.removal.record`."""

from imgdiffd.method.removal import RemovalSample

JSON_NAME = "img_diff_object_removal.json"
IMAGE_FOLDER = "object_removal"


def sample_name(sample: RemovalSample) -> str:
    """The sample's `path`: unique by item, image and object, and the same in every export."""
    erasure = sample.erasure
    return f"{IMAGE_FOLDER}/{erasure.item:08d}_{erasure.image}_{erasure.index}"
