"""What the linear layers of an encoder read, as ranges and histograms: int8 scales are chosen from them."""
