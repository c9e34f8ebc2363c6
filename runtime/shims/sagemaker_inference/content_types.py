"""Names of media types."""

from optml.serving.model.codecs import CSV, JSON, NPY, NPZ, OCTETS

ANY = "*/*"
OCTET_STREAM = OCTETS
UTF8_TYPES = [JSON, CSV]

__all__ = ["ANY", "CSV", "JSON", "NPY", "NPZ", "OCTET_STREAM", "UTF8_TYPES"]
