"""Programs that take the part of other hypervisors, written from their sources."""
