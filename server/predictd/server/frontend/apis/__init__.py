"""One adapter a protocol: pure codecs, a status table and thin handlers on raw bytes."""
