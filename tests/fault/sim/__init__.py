"""A deterministic simulation of the engine: seeded schedules of faults over the real code. See docs/how-it-is-proved.md."""
