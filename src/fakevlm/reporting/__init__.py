"""Tables, figures and the report. Drawing functions take frames or records and return a figure.

    from fakevlm.reporting.dataset_figures import sources, categories, confusion, clue_quality, agreement
    from fakevlm.reporting.score_figures import paradigms, training_curves, robustness, per_category, per_kind
    from fakevlm.reporting.case_figures import Case, cases, example

Let a notebook's cell end in the call: the figure shows itself. Only 08_report writes to `figures/`.
"""
