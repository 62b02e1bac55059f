"""The commands of the training side: one small file each."""
