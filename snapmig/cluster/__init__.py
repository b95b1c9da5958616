"""Jobs on other machines: the client of a Dask cluster, and the code run by its workers."""
