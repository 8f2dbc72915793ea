"""Label video datasets at scale: manifest in, one Parquet prediction row per clip out."""

__version__ = "0.1.0"
