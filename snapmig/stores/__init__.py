"""Where snapshots are kept: files, and objects of S3 storage; knows bytes and no format."""
