"""int8 and int4 graphs, and which parts may be quantized."""
