"""Products summed over axes."""

from __future__ import annotations

from applications.application import DOMAIN, Table
from applications.operands import T

TABLE = Table()
use = TABLE.use

_PADDED = {"pads": [1, 1, 1, 1]}

use("Conv", T(2, 4, 7, 8), T(6, 4, 3, 3), T(6), **_PADDED)
use("Conv", T(2, 4, 7, 8, through="Sigmoid"), T(6, 4, 3, 5), T(6), form="constants fold")
use("Conv", T(2, 4, 7, 8), T(6, 4, 3, 5), form="no bias", strides=[2, 1])
use("Conv", T(2, 6, 7, 8), T(9, 2, 3, 5), T(9), form="groups", group=3)
use("Conv", T(2, 6, 7, 8), T(6, 1, 3, 5), T(6), form="depthwise", group=6, **_PADDED)
use("Conv", T(2, 3, 7, 8), T(6, 1, 3, 5), T(6), form="depthwise, multiplied", group=3)
use("Conv", T(2, 4, 9), T(6, 4, 3), T(6), form="one axis", dilations=[2])
use("Conv", T(2, 4, 5, 6, 7), T(3, 4, 2, 1, 3), T(3), form="three axes")
use("Conv", T(4, 4, 4, 4), T(4, 4, 1, 1), T(4), form="equal sizes")
use("ConvTranspose", T(2, 4, 5, 6), T(4, 7, 3, 3), T(7))
use("ConvTranspose", T(2, 4, 5, 6), T(4, 7, 3, 2), form="no bias", strides=[2, 2], output_padding=[1, 0])
use("ConvTranspose", T(2, 6, 5, 4), T(6, 5, 3, 2), T(10), form="groups", group=2)
use("ConvTranspose", T(2, 6, 5, 4), T(6, 1, 3, 2), T(6), form="depthwise", group=6)

use("Gemm", T(3, 4), T(4, 5), T(5))
use("Gemm", T(3, 4, through="Sigmoid"), T(4, 5), T(5), form="constants fold", beta=0.5)
use("Gemm", T(3, 4), T(5, 4), T(3, 5), form="B turned", transB=1, alpha=0.5)
use("Gemm", T(4, 3), T(4, 5), T(3, 1), form="A turned", transA=1)
use("Gemm", T(4, 3), T(5, 4), T(1, 5), form="both turned", transA=1, transB=1, beta=2.0)
use("Gemm", T(3, 4), T(4, 5), T(), form="number added")
use("Gemm", T(3, 4), T(4, 5), T(1), form="one element added")
use("Gemm", T(3, 4), T(4, 5), form="nothing added")
use("Gemm", T(4, 4), T(4, 4), T(4, 4), form="equal sizes", transB=1)
use("Gemm", T(3, 4), T(4, 5), T(5), form="opset 9", opset=9)

use("MatMul", T(3, 4), T(4, 5))
use("MatMul", T(2, 3, 4), T(4, 5), form="rows")
use("MatMul", T(2, 3, 4, through="Sigmoid"), T(4, 5), form="constants fold")
use("MatMul", T(2, 6, 3, 4), T(2, 6, 4, 5), form="batches")
use("MatMul", T(6, 3, 4), T(2, 6, 4, 5), form="batches broadcast")
use("MatMul", T(2, 3, 4), T(1, 4, 5), form="batch of one")
use("MatMul", T(4), T(2, 4, 5), form="vector left")
use("MatMul", T(2, 3, 4), T(4), form="vector right")
use("MatMul", T(4), T(4), form="vectors")
use("MatMul", T(4, 4, 4), T(4, 4, 4), form="equal sizes")

use("Einsum", T(2, 3, 4), T(4, 5), equation="bij,jk->bki")
use("Einsum", T(2, 3, 4), T(2, 4, 5), form="batches", equation="bij,bjk->bik")
use("Einsum", T(3, 4), form="sum", equation="ij->j")
use("Einsum", T(3, 4), form="turned", equation="ij->ji")
use("Einsum", T(3, 4), T(4, 5), form="silent", equation="ij,jk")
use("Einsum", T(2, 3, 4), T(2, 4, 5), form="leading axes", equation="...ij,...jk->...ik")
use("Einsum", T(3), T(4), T(5), form="outer", equation="i,j,k->kij")
use("Einsum", T(3, 4), T(3, 4), form="inner", equation="ij,ij->")
use("Einsum", T(3, 3), form="diagonal", equation="ii->i")

use(f"{DOMAIN}.FusedMatMul", T(3, 4), T(4, 5), opset=17, alpha=0.5)
use(f"{DOMAIN}.FusedMatMul", T(2, 4, 3), T(2, 5, 4), form="both turned", opset=17, transA=1, transB=1)
use(f"{DOMAIN}.FusedMatMul", T(3, 2, 4), T(4, 2, 5), form="batch turned", opset=17, transBatchA=1, transBatchB=1)
use(f"{DOMAIN}.TransposeMatMul", T(3, 4), T(5, 4), opset=17, transB=1)
use(f"{DOMAIN}.TransposeMatMul", T(4, 3), T(4, 5), form="A turned", opset=17, transA=1)

use(f"{DOMAIN}.FusedGemm", T(3, 4), T(4, 5), T(5), opset=17, activation="Relu", alpha=0.5)
use(f"{DOMAIN}.FusedGemm", T(4, 3), T(5, 4), T(3, 5), form="turned", opset=17, transA=1, transB=1, activation="Tanh")
use(f"{DOMAIN}.FusedGemm", T(3, 4), T(4, 5), form="sigmoid", opset=17, activation="Sigmoid")

_KERNEL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
use(f"{DOMAIN}.FusedConv", T(2, 4, 7, 8), T(6, 4, 3, 3), T(6), opset=17, activation="Relu", **_KERNEL)
use(
    f"{DOMAIN}.FusedConv", T(2, 4, 7, 8), T(6, 4, 3, 3), T(6), T(2, 6, 7, 8),
    form="residual", opset=17, activation="Relu", **_KERNEL,
)  # fmt: skip
use(
    f"{DOMAIN}.FusedConv", T(2, 4, 7, 8), T(6, 2, 3, 3), T(6),
    form="groups", opset=17, group=2, activation="LeakyRelu", activation_params=[0.1], **_KERNEL,
)  # fmt: skip
use(
    f"{DOMAIN}.FusedConv", T(2, 4, 7, 8), T(6, 4, 3, 3), T(6),
    form="sigmoid", opset=17, activation="Sigmoid", **_KERNEL,
)  # fmt: skip

use("CausalConvWithState", T(2, 4, 6), T(4, 1, 3), opset=27, results=2)
use(
    "CausalConvWithState", T(2, 4, 6), T(4, 1, 3), T(4), T(2, 4, 2), form="past", opset=27, results=2, activation="silu"
)
use("CausalConvWithState", T(4, 4, 4), T(4, 1, 3), None, T(4, 4, 2), form="equal sizes", opset=27, results=2)
use("Det", T(2, 5, 4, 4), opset=22)
use("Det", T(2, 5, 4, 4), form="opset 11", opset=11)
