"""Files served to the kernel by FUSE; only this package knows mfusepy, and it knows no snapshot."""
