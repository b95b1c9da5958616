"""QEMU's migration connections: snapmig as the destination of a guest."""
