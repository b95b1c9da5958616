"""Guest RAM images in and out: where pages come from and go to; knows no snapshot."""
