"""What a person looks at: pictures and maps of a prediction."""
