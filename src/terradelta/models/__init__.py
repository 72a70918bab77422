"""Networks: encoders, heads, the registry that joins them, and the folders they are kept in."""
