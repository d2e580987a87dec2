"""Where artifacts live: any URL that fsspec knows, what a node keeps of it, and rows as CSV."""
