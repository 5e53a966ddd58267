"""Reading of rows from files: tables, folders, images, sound, published benchmarks, word vectors."""
