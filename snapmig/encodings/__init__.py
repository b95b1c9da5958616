"""What stands in a slot: page contents to stored bytes and back; knows no file."""
