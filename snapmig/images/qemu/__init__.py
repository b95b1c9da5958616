"""QEMU's migration stream around the pages, common to mapped-ram, streams and libvirt."""
