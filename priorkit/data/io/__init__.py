"""Reading and writing files: rows, tables, shards, tensors, rejected rows."""
