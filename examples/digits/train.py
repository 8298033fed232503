"""Trains a digit recogniser on scikit-learn's digits (1,797 images of 8×8 pixels) and writes it as ONNX.

It follows the training contract (docs/training-contract.md): where to read and write comes from the environment, and
the same inputs give the same bytes. Hyperparameters, all optional:

    model         "logistic" (default) or "mlp"
    c             inverse strength of the regularisation of the logistic model (default 0.1)
    hidden        neurons of the mlp's hidden layer (default 32)
    iterations    most iterations of either (default 300)
    test_percent  share of the images held out for the evaluation (default 25)
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

PIXEL_MAX = 16.0
CLASSES = 10
OPSET = 17
IR_VERSION = 8  # what every ONNX runtime since 2022 reads


def main() -> None:
    output = Path(os.environ["AI_INFRA_OUTPUT_DIR"])
    seed = int(os.environ["AI_INFRA_SEED"]) % (1 << 32)
    hyperparams: dict[str, Any] = json.loads(Path(os.environ["AI_INFRA_HYPERPARAMS"]).read_text(encoding="utf-8"))

    images, labels = load(Path(os.environ["AI_INFRA_DATASETS_DIR"]))
    share = hyperparams.get("test_percent", 25) / 100
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=share, random_state=seed, stratify=labels
    )
    pipeline = fit(train_x, train_y, hyperparams, seed)
    model = to_onnx(pipeline)
    path = output / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))

    metrics = evaluate(path, test_x, test_y)
    (output / "metrics.json").write_text(json.dumps(metrics, sort_keys=True) + "\n", encoding="utf-8")
    print(f"trained on {len(train_x)} images, {metrics['accuracy']:.4f} of {len(test_x)} held-out ones are right")


def load(datasets: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 64) with pixels 0..16, and labels (n,) 0..9, from the one dataset of the job."""
    index = json.loads((datasets / "datasets.json").read_text(encoding="utf-8"))
    if len(index) != 1:
        sys.exit(f"expected one dataset, scikit-learn's digits, and the job names {len(index)}: see job.json")
    (dataset,) = index.values()
    with gzip.open(datasets / dataset["path"], "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)


def fit(images: np.ndarray, labels: np.ndarray, hyperparams: dict[str, Any], seed: int) -> Pipeline:
    """The fitted pipeline: pixels scaled to 0..1, then the classifier."""
    iterations = int(hyperparams.get("iterations", 300))
    match hyperparams.get("model", "logistic"):
        case "logistic":
            classifier: Any = LogisticRegression(C=float(hyperparams.get("c", 0.1)), max_iter=iterations)
        case "mlp":
            classifier = MLPClassifier(
                hidden_layer_sizes=(int(hyperparams.get("hidden", 32)),), max_iter=iterations, random_state=seed
            )
        case other:
            raise SystemExit(f"hyperparameter model is {other!r}; expected 'logistic' or 'mlp'")
    return make_pipeline(FunctionTransformer(lambda x: x / PIXEL_MAX), classifier).fit(images, labels)


def to_onnx(pipeline: Pipeline) -> onnx.ModelProto:
    """The pipeline as a graph of plain ONNX operators: `pixels` (n, 64) float -> `label` (n,), `probabilities` (n, 10).

    Written by hand rather than by a converter: names, order and producer are ours, so the bytes depend on the weights
    alone and not on a converter's version, counter or clock.
    """
    classifier = pipeline[-1]
    if isinstance(classifier, LogisticRegression):
        layers = [(classifier.coef_.T, classifier.intercept_)]
    else:
        layers = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    nodes = [helper.make_node("Div", ["pixels", "pixel_max"], ["layer_0"], name="scale")]
    constants = [numpy_helper.from_array(np.array(PIXEL_MAX, dtype=np.float32), "pixel_max")]
    for number, (weights, bias) in enumerate(layers, start=1):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(weights, dtype=np.float32), f"weights_{number}"))
        constants.append(numpy_helper.from_array(np.asarray(bias, dtype=np.float32), f"bias_{number}"))
        last = number == len(layers)
        result = "scores" if last else f"sum_{number}"
        nodes.append(
            helper.make_node(
                "Gemm",
                [f"layer_{number - 1}", f"weights_{number}", f"bias_{number}"],
                [result],
                name=f"dense_{number}",
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"layer_{number}"], name=f"relu_{number}"))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], name="softmax", axis=1))
    nodes.append(helper.make_node("ArgMax", ["scores"], ["label"], name="argmax", axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES]),
        ],
        initializer=constants,
    )
    model = helper.make_model(graph, producer_name="digits", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    checker.check_model(model, full_check=True)
    return model


def evaluate(path: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """Metrics of the exported model itself, as whoever serves it will run it, on images that it was not trained on."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    guessed, probabilities = session.run(["label", "probabilities"], {"pixels": images})
    exact = probabilities.astype(np.float64)
    shares = exact / exact.sum(axis=1, keepdims=True)
    return {
        "accuracy": round(float(accuracy_score(labels, guessed)), 6),
        "f1_macro": round(float(f1_score(labels, guessed, average="macro")), 6),
        "log_loss": round(float(log_loss(labels, shares, labels=list(range(CLASSES)))), 6),
        "test_images": len(labels),
    }


if __name__ == "__main__":
    main()
