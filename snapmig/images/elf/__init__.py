"""What ELF cores are made of."""
