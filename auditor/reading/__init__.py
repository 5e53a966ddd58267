"""From files to rows: tables, folders, pictures, sound, published benchmarks, word vectors."""
