"""Every kind of damage to snapshots in turn, and a judge of what verify and restore make of it."""
