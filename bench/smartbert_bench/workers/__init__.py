"""The process of each contender: its handle (process.py), its loop (serve.py), their protocol, the runners."""
