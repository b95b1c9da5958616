"""Keys: file keys of sealed snapshots, the slots that wrap them, and those who open the slots."""
