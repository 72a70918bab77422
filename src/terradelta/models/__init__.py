"""Networks: encoders, heads, the registry that joins them, and model folders."""
