"""Other machines: what snapmig has Dask do on a cluster, and what runs there."""
