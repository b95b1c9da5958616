"""Ways in which an image's files hold the pages of RAM: one reader a way."""
