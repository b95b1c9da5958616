"""Guests of other hypervisors, served from snapshots or saved, by their own protocols."""
