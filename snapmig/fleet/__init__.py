"""Worker processes: started, fed, watched and ended; knows nothing of guests or snapshots."""
