"""Archives of images, annotated by one machine or many: INPUT -> manifest -> chunks -> Parquet data set, each image once."""

from cocoer.errors import MissingExtra

try:
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as err:
    raise MissingExtra("table", err) from None
