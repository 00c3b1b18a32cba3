"""From an exported fp32 file to a smaller, faster one that is proven right: int8 and fp16, with measured gates."""
