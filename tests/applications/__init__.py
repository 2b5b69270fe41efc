"""Every operator that has a rule, applied to random operands in all its forms.

* :mod:`applications.application`: one use of one operator; :mod:`applications.operands`: what it is applied to.
* :mod:`applications.tables`: all of them, from one module a family of operators.
* :mod:`applications.models`: the model around an application; :mod:`applications.verdicts`: what becomes of its axes.
* :mod:`applications.summary`: the verdicts as a text, ``axes.txt``, which is committed.
"""
