"""
The benchmark of calls: what a client costs, compared with a bare boto3 client.

:mod:`operations` lists what is measured, :mod:`subjects` are the clients, :mod:`rounds` measures in
one process, :mod:`processes` runs several of them, :mod:`cold_start` starts fresh ones,
:mod:`endpoint` has the server and its tables, and :mod:`report` shows the figures.
"""
