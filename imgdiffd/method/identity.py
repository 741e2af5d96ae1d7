"""The key of a sample: the same on every machine that makes it, whatever its numbers in a database."""

import hashlib
import json
from functools import lru_cache

from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Abort


def sample_key(profile: Profile, caption: str, kind: str, *place: int) -> str:
    """32 hex digits over the profile, the caption as it was given, the kind of sample and its place in the pair.

    The place is the region's number or, of a removal sample, its image's and its object's. A profile's name and its
    settings of early abort are left out, since they change no sample.
    """
    return stored_key(profile.stored(), caption, kind, *place)


def stored_key(profile: str, caption: str, kind: str, *place: int) -> str:
    """`sample_key` for a profile as databases know it, which is read once and not for every sample."""
    digest = _begun(profile).copy()
    digest.update(json.dumps([caption, kind, *place]).encode())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _begun(stored: str) -> "hashlib.blake2b":
    profile = Profile.model_validate_json(stored)
    generate = profile.generate.model_copy(update={"abort": Abort()})
    plain = json.loads(profile.model_copy(update={"generate": generate}).stored())
    del plain["name"]
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode() + b"\n", digest_size=16)
