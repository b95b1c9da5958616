"""Many guests saved or restored in one run, on this host or on a cluster."""
