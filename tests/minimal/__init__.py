"""Is a reported group the smallest set of weight slices that can go? An exhaustive search says so.

The search shares nothing with the solver. It deletes every subset of a group's slices from the weights, walks through
the model operator by operator, tries every count that an attribute may become, and asks onnxruntime whether what is
left still computes what the original computes with those slices at zero. Only the whole group may come through.

``python -m minimal.campaign`` (from the ``tests`` folder) does this for random models.
"""
