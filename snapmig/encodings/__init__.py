"""Contents of a slot: page contents to stored bytes and back. Knows no file."""
