"""Models that a bundle names by hub id: where they are on this machine, what is wrong with them, how they get here.

It owns the way from a source to its folder; it does not know what a model computes. Only `pulling` knows the network.
"""

from imgdiffd.hub.cache import Presence, cached, folder_of, presences, problems, remedy, vae_folder_of

__all__ = ["Presence", "cached", "folder_of", "presences", "problems", "remedy", "vae_folder_of"]
