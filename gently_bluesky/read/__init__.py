"""Files out, arrays and documents in."""
