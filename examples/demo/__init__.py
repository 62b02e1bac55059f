"""The demo's material: a real pretrained encoder and real text, both out of PyPI packages that are never imported."""
