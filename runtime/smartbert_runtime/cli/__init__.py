"""The commands: one small file each, over the library's public functions."""
