"""Random models that are right, and random files that are wrong.

* :mod:`fuzz.recipes`: a random model as plain numbers, drawn by numpy or by hypothesis; and how to shrink one.
* :mod:`fuzz.workshop`: what layers are made with.
* :mod:`fuzz.layers`: the layers that a recipe is made of, by kind.
* :mod:`fuzz.graphs`: a recipe's model.
* :mod:`fuzz.judge`: half of every active family removed, against the same model zeroed by hand.
* :mod:`fuzz.campaign`: many random models; ``python -m fuzz.campaign --help``.
* :mod:`fuzz.damage`: random corruptions of valid files.
* :mod:`fuzz.hostile`: many damaged files in limited worker processes; ``python -m fuzz.hostile --help``.
* :mod:`fuzz.numbered`: what both campaigns share: numbered cases, two processes, a log that can be resumed.
"""
