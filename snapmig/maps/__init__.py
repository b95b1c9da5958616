"""Pictures of a guest's memory, from the index of a snapshot."""
