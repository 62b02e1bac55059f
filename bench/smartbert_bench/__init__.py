"""What smartbert-bench measures: contenders side by side in one run, each in a process of its own, in turns.

Read measure.py first; worker.py is what runs in a contender's process, package_runner.py what it asks there.
"""
