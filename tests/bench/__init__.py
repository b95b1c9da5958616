"""The benchmark: snapmig beside other compressors and beside its limits, on one machine."""
