"""Linux calls missing from Python, and safe habits with files. Knows no guests."""
