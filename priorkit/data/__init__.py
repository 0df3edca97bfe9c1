"""Sources, mixing, packing, instructions, images: streams as pure functions of (seed, step)."""
