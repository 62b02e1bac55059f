"""int8 and int4 graphs, and the choice of the parts that are quantized."""
