"""Fakes that ship with the daemon: a worker process without models, and models without weights.

They own what tests and rehearsals need to run the real scheduler, store and stages; they know nothing of torch until
`imgdiffd.testing.models` is imported.
"""
