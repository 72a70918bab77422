"""The prediction folder: what its files hold, read and checked in one place."""
