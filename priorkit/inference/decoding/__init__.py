"""Decoding token by token: with a cache that grows, or one of fixed size whose steps a GPU replays."""
