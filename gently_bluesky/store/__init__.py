"""What is on disk: names, journals, manifests, the index and the formats of volumes. Knows no RunEngine."""
