"""Measure the product beside what people use instead: ``python -m benchmarks --help``.

    command.py       what to run, and where the results go
    conversion.py verification.py planning.py start_up.py loading.py ray_executor.py
                     one bench each, or two that share their contenders
    checkpoint.py    the checkpoint that is converted; write_checkpoint.py writes it
    naive.py resave.py load_once.py roofline.py same_tensors.py
                     programs that run in a process of their own
    measure.py launch.py
                     rounds of whole processes: seconds, and memory of the whole tree
    result.py page.py plots.py
                     figures as JSON, and the page that is made of them

The process that measures imports neither torch nor numpy, so that it takes no memory from those
that are measured.
"""
