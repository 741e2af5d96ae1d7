"""The daemon's side of the worker processes: one for each device, started, fed, watched and replaced."""
