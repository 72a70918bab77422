"""The prediction folder: the content of its files, read and checked in one place."""
