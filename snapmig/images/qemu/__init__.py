"""QEMU's migration stream around the pages: what mapped-ram, classic stream and libvirt share."""
