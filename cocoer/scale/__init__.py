"""Archives of images, annotated by one machine or many: INPUT -> manifest -> chunks -> Parquet data set, each image once."""
