"""Worker processes: start, feed, watch and end them. Knows no guests and no snapshots."""
