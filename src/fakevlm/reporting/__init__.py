"""Tables, figures and the report. Drawing functions take frames or records and return a figure.

Let a notebook's cell end in the call: the figure shows itself. Only 08_report writes to `figures/`.
"""
