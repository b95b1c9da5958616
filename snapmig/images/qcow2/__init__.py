"""Internal snapshots of qcow2 disk images: guests saved with ``savevm``."""
