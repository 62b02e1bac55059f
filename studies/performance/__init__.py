"""Studies of exported packages: speed, memory, scale, layouts, quantization, export cost; each is run by python -m."""
