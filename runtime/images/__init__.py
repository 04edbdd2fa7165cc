"""From whatever a caller holds to a safe RGB image: where the bytes are, and how they are decoded."""
