"""Rules for PyTorch's operators: the same notation and the same table as ONNX's, with the domain ``aten``.

``aten.add`` speaks for all overloads of ``add`` that have no rule of their own. Operands are the tensor arguments in
the order of the schema; everything else is an attribute under its name in the schema. Nothing here imports torch.
"""
