"""Models that ozgraph is proved on, as plain builders: each call returns a fresh ``onnx.ModelProto``.

* :mod:`models.rows`: one small model for each thing that networks do to their dims.
* :mod:`models.light`: the nine legacy networks of the ``onnx`` package, with weights.
* :mod:`models.exported`: networks written in torch and exported.
* :mod:`models.feeding`: inputs that fit a model.
"""
