"""What is hidden: secrets in headers, targets, bodies and values, by their names."""
