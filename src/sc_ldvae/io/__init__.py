"""Exchange with files and other packages."""
