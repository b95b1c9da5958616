"""Running guests: QEMU's monitor, the memory it shares, its device state."""
