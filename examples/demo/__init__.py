"""The demo's data: real text messages and a pretrained encoder, both from PyPI packages that are never imported."""
